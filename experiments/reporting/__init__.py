"""From run folders to tables, figures and a page; nothing here trains, and nothing is typed by hand."""

"""Tasks: examples and their order. A new one is a file here and a row in the table."""

from experiments.base.contracts import Task
from experiments.tasks.captions import Flickr8k
from experiments.tasks.file import File
from experiments.tasks.imdb import Imdb, Imdb8, ImdbScore, ImdbSentences
from experiments.tasks.intents import Clinc150
from experiments.tasks.needles import Needles
from experiments.tasks.newsgroups import Newsgroups
from experiments.tasks.ratings import AmazonRatings, PlantedRatings
from experiments.tasks.reuters import Reuters, ReutersTitles
from experiments.tasks.reviews import review_task
from experiments.tasks.sentences import sentence_task
from experiments.tasks.titles import DebianTitles, TitleFile
from experiments.tasks.triples import Conll04, TripleFile
from experiments.tasks.wheels import R8, R52, Films, MovieSnippets
from experiments.tasks.wordnet import WordNet

TASKS: dict[str, type[Task]] = {
    "wordnet": WordNet,
    "file": File,
    "needles": Needles,
    "mr": sentence_task("mr"),
    "sst1": sentence_task("sst1"),
    "sst2": sentence_task("sst2"),
    "subj": sentence_task("subj"),
    "trec": sentence_task("trec"),
    "cr": sentence_task("cr"),
    "mpqa": sentence_task("mpqa"),
    "imdb": Imdb,
    "imdb8": Imdb8,
    "imdb_score": ImdbScore,
    "imdb_sentences": ImdbSentences,
    "newsgroups20": Newsgroups,
    "reuters": Reuters,
    "clinc150": Clinc150,
    "flickr8k": Flickr8k,
    "conll04": Conll04,
    "triple_file": TripleFile,
    "debian_titles": DebianTitles,
    "reuters_titles": ReutersTitles,
    "title_file": TitleFile,
    "r8": R8,
    "r52": R52,
    "movie_snippets": MovieSnippets,
    "films": Films,
    "ag_news": review_task("ag_news"),
    "yelp_polarity": review_task("yelp_polarity"),
    "yelp_full": review_task("yelp_full"),
    "amazon": review_task("amazon"),
    "amazon_ratings": AmazonRatings,
    "planted_ratings": PlantedRatings,
}

#!/usr/bin/env python3
"""Writes sklearn.json beside this file: what scikit-learn 1.9.1 makes of a few small texts."""

import json
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

ENGLISH = [
    ("A stirring, funny and finally transporting re-imagining of beauty", "good"),
    ("It's funny: very, very FUNNY and never dull", "good"),
    ("One of the best films of 2001; a 10/10 film", "good"),
    ("snake_case is one word, naïve café Ünïcode too", "odd"),
    ("½ a film is 1² more than I or a dog need", "odd"),
    ("One long string of clichés, and a dull one", "bad"),
    ("The film is dull, dull, dull; the dog is not funny", "bad"),
    ("Apparently re-assembled from the cutting-room floor", "bad"),
    ("!!! ... ???", "odd"),
    ("The beauty of the film is the dog", "good"),
]
CHINESE = [
    ("非常好，现在每天都喝", "1"),
    ("味道不错，就是  有小菜没有筷子\n\n不是很方便", "0"),
    ("送的挺快的,但是饼子不热", "0"),
    ("味道非常好！！！送餐快 ABC", "1"),
    ("太慢了\t两个小时", "0"),
    ("很好吃", "1"),
]
UNSEEN = {"en": ["a funny film about a dull dog", "", "zzz"], "zh": ["味道很好", "慢", ""]}

CASES = [
    ("en", dict(analyzer="word", ngram_range=(1, 1))),
    ("en", dict(analyzer="word", ngram_range=(1, 2), min_df=2, sublinear_tf=True)),
    ("zh", dict(analyzer="char", ngram_range=(1, 2))),
    ("zh", dict(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)),
]


def case(language, options, c):
    rows = {"en": ENGLISH, "zh": CHINESE}[language]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    tfidf = TfidfVectorizer(**options)
    x = tfidf.fit_transform(texts)
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(x, labels)
    unseen = tfidf.transform(UNSEEN[language])
    return {
        "options": {
            "tfidf": {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()},
            "logistic": {"c": c},
        },
        "texts": texts,
        "labels": labels,
        "unseen": UNSEEN[language],
        "terms": tfidf.get_feature_names_out().tolist(),
        "rows": [sparse(row) for row in [*x, *unseen]],
        "probabilities": [[round(p, 9) for p in row] for row in model.predict_proba(unseen).tolist()],
        "classes": model.classes_.tolist(),
    }


def sparse(row):
    row = row.tocsr()
    row.sort_indices()
    return [[int(i), round(float(v), 9)] for i, v in zip(row.indices, row.data)]


cases = [case(language, options, c) for language, options in CASES for c in (1.0, 30.0)]
path = Path(__file__).with_name("sklearn.json")
path.write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")

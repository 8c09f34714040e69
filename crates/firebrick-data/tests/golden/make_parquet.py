#!/usr/bin/env python3
"""Writes parquet/ beside this file: the same rows as pyarrow 25.0 writes them in several ways.

    pip install pyarrow==25.0.1
    python make_parquet.py
"""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent / "parquet"

ROWS = pa.table(
    {
        "text": ["good", "味道很好", None, "two\nlines", "", "bad", "good"],
        "label": pa.array([1, 1, 0, None, 0, -5, 1], pa.int64()),
        "wide": pa.array([2**64 - 1, 2**63, 0, 1, 2, 3, 4], pa.uint64()),
        "small": pa.array([255, 0, 1, 2, 3, 4, 5], pa.uint8()),
        "score": [1.0, 0.5, float("nan"), float("inf"), -2.25, 1e-3, None],
        "half": pa.array([0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], pa.float32()),
        "flag": [True, False, None, True, False, True, False],
        "kind": pa.array(["a", "b", "a", "b", "a", "b", None]).dictionary_encode(),
        "pair": [{"en": "one", "fr": "un"}, {"en": "two", "fr": None}, None]
        + [{"en": str(i), "fr": "x"} for i in range(4)],
        "tokens": [["a", "b"], [], None, ["c"], ["d"], ["e"], ["f"]],
        "day": [datetime.date(2026, 1, 1)] * 7,
        "bytes": pa.array([b"plain", b"\xff", b"a\0b", b"", b"x", b"y", b"z"]),
    },
    schema=None,
)
# Of a required column no level is written.
ROWS = ROWS.append_column(pa.field("id", pa.int32(), nullable=False), pa.array(range(7), pa.int32()))

WAYS = {
    "snappy": {"compression": "snappy", "row_group_size": 3},
    "gzip": {"compression": "gzip", "data_page_version": "2.0"},
    "zstd": {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"},
    "none": {"compression": "none", "use_dictionary": False, "write_page_index": True},
    "delta": {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {
            "text": "DELTA_LENGTH_BYTE_ARRAY",
            "bytes": "DELTA_BYTE_ARRAY",
            "label": "DELTA_BINARY_PACKED",
            "score": "BYTE_STREAM_SPLIT",
        },
    },
    "brotli": {"compression": "brotli"},
}

HERE.mkdir(exist_ok=True)
for name, options in WAYS.items():
    columns = ["text", "label"] if name == "brotli" else ROWS.column_names
    pq.write_table(ROWS.select(columns), HERE / f"{name}.parquet", store_schema=False, **options)

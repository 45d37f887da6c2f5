# Golden Parquet file of conversations, in row groups of two and compressed with zstd, by the reference library.
#   pip install pyarrow && python tests/oracles/make-parquet.py
# Writes golden/chat.parquet.
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent / "golden"
rows = [
    {"messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}], "id": i}
    for i in range(5)
]
pq.write_table(pa.Table.from_pylist(rows), here / "chat.parquet", row_group_size=2, compression="zstd")

"""Small, complete raw input of every format, as the bytes of its files."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

ROWS = 8
ARRAYS = {
    "src": np.arange(ROWS) % 3,
    "dst": np.arange(ROWS) % 4,
    "time": np.arange(ROWS) // 2,
    "edge_features": np.ones((ROWS, 2), np.float32),
    "node_features": np.ones((4, 2), np.float32),
    "label": np.arange(ROWS),
    "node_label": np.arange(ROWS),
    "split": np.repeat([0, 1, 2], [4, 2, 2]),
    "validation_negatives": np.ones((2, 3), np.int64),
    "test_negatives": np.zeros((2, 3), np.int64),
}


def complete_inputs():
    """Format → name of a file → its bytes."""
    names = {"src": "src", "dst": "dst", "t": "time", "msg": "edge_features", "y": "node_label"}
    rows = list(zip(*(ARRAYS[name] for name in ("src", "dst", "time", "split")), strict=True))
    edges = "".join(f"{k},{u},{v},{t},{part}\n" for k, (u, v, t, part) in enumerate(rows))
    table = "".join(f"{k},{u},{v},{t},0,{k % 4}\n" for k, (u, v, t, _) in enumerate(rows))
    return {
        "csv": {"in.csv": b"src,dst,time\n" + _lines(",", [row[:3] for row in rows])},
        "snap": {"in.txt": _lines(" ", [row[:3] for row in rows])},
        "jodie": {
            "in.csv": b"user_id,item_id,timestamp,state_label,comma_separated_list_of_features\n"
            + _lines(",", [(u, v, t, k % 2, 0.5, 1) for k, (u, v, t, _) in enumerate(rows)])
        },
        "parquet": {
            "in.parquet": _bytes(
                pq.write_table, pa.table({name: ARRAYS[name] for name in ("src", "dst", "time")})
            )
        },
        "tgl": {
            "edges.csv": f",src,dst,time,ext_roll\n{edges}".encode(),
            "edge_features.pt": _tensor("edge_features"),
            "node_features.pt": _tensor("node_features"),
            "labels.csv": b",node,time,label\n0,0,0,1\n1,1,0,0\n",
        },
        "dyglib": {
            "ml_x.csv": f",u,i,ts,label,idx\n{table}".encode(),
            "ml_x.npy": _array("edge_features"),
            "ml_x_node.npy": _array("node_features"),
        },
        "kg": {
            "train.txt": _lines("\t", [(u, k % 2, v, t) for k, (u, v, t, _) in enumerate(rows)]),
            "valid.txt": b"0\t0\t1\t9\n",
            "test.txt": b"0\t1\t1\t9\n",
            "entity2id.txt": b"a\t0\nb\t1\nc\t2\nd\t3\n",
            "relation2id.txt": b"p\t0\nq\t1\n",
        },
        "pyg": {
            "in.pt": _bytes(torch.save, {one: torch.from_numpy(ARRAYS[name]) for one, name in names.items()})
        },
        "npz": {"in.npz": _bytes(lambda arrays, file: np.savez_compressed(file, **arrays), ARRAYS)},
    }


def _lines(delimiter, rows):
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows).encode()


def _bytes(write, value):
    content = io.BytesIO()
    write(value, content)
    return content.getvalue()


def _tensor(name):
    return _bytes(torch.save, torch.from_numpy(ARRAYS[name]))


def _array(name):
    return _bytes(lambda array, file: np.save(file, array), ARRAYS[name])

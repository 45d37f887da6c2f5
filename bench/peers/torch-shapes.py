# Products and attention of PyTorch at the sizes that bench/hardware/run.ts gives on its standard input, as JSON:
#   python bench/peers/torch-shapes.py < sizes.json
# f32 without TF32; half precision is bf16. On the GPU by its events, on the processor (for scale) by the clock.
import json
import statistics
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention as attend

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = False
dtypes = {"f32": torch.float32, "f16": torch.bfloat16}


def timed(work):
    work()
    times = []
    while len(times) < 3 or (len(times) < 20 and sum(times) < 1000):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            began = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def measure(sizes, dtype):
    rows, width, ffn = sizes["batch"] * sizes["tokens"], sizes["width"], sizes["ffnWidth"]
    new = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)
    x, g, w = new(rows, width), new(rows, ffn), new(ffn, width)
    found = {"matmul NT": timed(lambda: x @ w.T), "matmul NN": timed(lambda: g @ w), "matmul TN": timed(lambda: g.T @ x)}
    heads, groups, size = sizes["heads"], sizes["kvHeads"], sizes["headSize"]
    q, k, v = (new(sizes["batch"], count, sizes["tokens"], size).requires_grad_() for count in (heads, groups, groups))
    seed = new(*q.shape)
    forward = lambda: attend(q, k, v, is_causal=True, enable_gqa=True)
    with torch.no_grad():
        found["attention"] = timed(forward)
    y = forward()
    found["attention, gradients"] = timed(lambda: torch.autograd.grad(y, (q, k, v), seed, retain_graph=True))
    return found


ms = []
for sizes in json.load(sys.stdin):
    one = {}
    for name, dtype in dtypes.items():
        try:
            one |= {f"{kernel} {name}": value for kernel, value in measure(sizes, dtype).items()}
        except torch.OutOfMemoryError if device == "cuda" else MemoryError:
            torch.cuda.empty_cache()
    ms.append(one)
where = torch.cuda.get_device_name() if device == "cuda" else f"the processor, {torch.get_num_threads()} threads"
print(json.dumps({"about": f"PyTorch {torch.__version__} on {where}; bf16 beside our f16", "ms": ms}))

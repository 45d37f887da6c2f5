# Golden safetensors file of every dtype that PyTorch has, by the format's own library.
#   pip install safetensors torch && python tests/oracles/make-safetensors.py
# Writes golden/dtypes.safetensors.
import pathlib

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent / "golden"
torch.manual_seed(1)
x = torch.randn(2, 3)
kinds = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64, torch.bool,
]
tensors = {str(kind).removeprefix("torch."): (x.abs() * 9).to(kind) for kind in kinds}
# Names that JavaScript and Rust sort differently, and that JSON escapes.
tensors |= {"\uffff": x[:1].clone(), "\U00010000": x[1:].clone(), 'a"\\\n\x01\x7f\u2028é': x[0].clone()}
tensors["bfloat16.source"] = torch.tensor([1.0, 1.00390625, 1.01171875, 3.4e38, -1e-40, float("inf")])
tensors["bfloat16.rounded"] = tensors["bfloat16.source"].to(torch.bfloat16)
save_file(tensors, here / "dtypes.safetensors", {"format": "pt"})

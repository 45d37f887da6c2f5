# Golden quantised layers by bitsandbytes, on the CPU.
#   pip install bitsandbytes torch safetensors && python tests/oracles/make-bitsandbytes.py
# Writes golden/bitsandbytes.safetensors: the state dicts of four layers, and what each stands for under values/.
import pathlib

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent / "golden"
torch.manual_seed(3)
tensors = {}
for name, (rows, columns, dtype, nested) in {
    "plain": (6, 50, torch.float32, False),
    "nested": (40, 448, torch.bfloat16, True),
    "tiny": (8, 64, torch.float16, True),
}.items():
    layer = bnb.nn.Linear4bit(columns, rows, bias=name == "tiny", compute_dtype=torch.float32, compress_statistics=nested, quant_type="nf4")
    scale = 1e-6 if name == "tiny" else 1.0
    layer.weight = bnb.nn.Params4bit(
        (torch.randn(rows, columns) * scale).to(dtype), requires_grad=False, compress_statistics=nested, quant_type="nf4", blocksize=64,
    )
    layer = layer.to("cpu")
    if layer.weight.quant_state is None:
        layer.weight = layer.weight._quantize("cpu")
    tensors |= {f"{name}.{key}": value.contiguous() for key, value in layer.state_dict().items()}
    tensors[f"values/{name}"] = dequantize_4bit(layer.weight.data, layer.weight.quant_state).contiguous()

layer = bnb.nn.Linear8bitLt(16, 6, bias=False, has_fp16_weights=False)
weight = torch.randn(6, 16).half()
codes, absmax, _ = bnb.functional.int8_vectorwise_quant(weight)
layer.weight = bnb.nn.Int8Params(codes, requires_grad=False, has_fp16_weights=False)
layer.weight.SCB = absmax
layer.state.SCB = absmax
tensors |= {f"int8.{key}": value.contiguous() for key, value in layer.state_dict().items()}
tensors["values/int8"] = codes.float() * absmax.view(-1, 1) / 127
for key, value in tensors.items():
    print(key, value.dtype, tuple(value.shape), bytes(value.tolist()) if "quant_state" in key else "")
save_file(tensors, here / "bitsandbytes.safetensors", {"format": "pt"})

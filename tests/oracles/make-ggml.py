# Golden files of GGUF, by the format's own Python library.
#   pip install gguf safetensors numpy && python tests/oracles/make-ggml.py
# Writes golden/ggml-quants.safetensors (blocks of random bytes and the values they stand for) and golden/small.gguf.
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent / "golden"
random = np.random.default_rng(7)
types = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
tensors = {}
for name in types:
    kind = GGMLQuantizationType[name]
    size, width = GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (max(6, 64 // size), width), dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = dequantize(data, kind).astype(np.float32).reshape(-1)
    tensors[f"{name}/bytes"] = data.reshape(-1)
    tensors[f"{name}/values"] = values
save_file(tensors, here / "ggml-quants.safetensors")

writer = GGUFWriter(here / "small.gguf", "llama")
writer.add_uint8("a.u8", 255)
writer.add_int8("a.i8", -128)
writer.add_uint16("a.u16", 65535)
writer.add_int16("a.i16", -32768)
writer.add_uint32("a.u32", 4294967295)
writer.add_int32("a.i32", -2147483648)
writer.add_float32("a.f32", 0.1)
writer.add_uint64("a.u64", 2**64 - 1)
writer.add_int64("a.i64", -5)
writer.add_float64("a.f64", 0.1)
writer.add_bool("a.bool", True)
writer.add_string("a.string", "\ufeffnaïve 🙂")
writer.add_array("a.strings", ["", "a", "é"])
writer.add_array("a.integers", [1, -2, 3])
writer.add_array("a.floats", [0.5, -0.25])
writer.add_array("a.bools", [True, False])
matrix = random.standard_normal((3, 64), dtype=np.float32)
writer.add_tensor("plain", matrix)
writer.add_tensor("vector", np.arange(5, dtype=np.float32))
writer.add_tensor("halves", matrix[:, :7].astype(np.float16))
writer.add_tensor("packed", quantize(matrix, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

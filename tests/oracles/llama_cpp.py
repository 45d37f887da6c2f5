# llama.cpp on the processor for the other scripts: the libraries that the npm package node-llama-cpp brings, by ctypes.
#   (cd tests/oracles/packages && npm ci --ignore-scripts)
# Its own bindings give probabilities of a sorted vocabulary, which takes a tenth of a second a token.
import ctypes
import json
import os
import pathlib
import subprocess
import tempfile

import gguf
import numpy as np

modules = pathlib.Path(__file__).parent / "packages/node_modules"
package = modules / "@node-llama-cpp/linux-x64/bins/linux-x64"
release = json.loads((package / "_nlcBuildMetadata.json").read_text())["buildOptions"]["llamaCpp"]["release"]
ggml = ctypes.CDLL(str(next(package.glob("libggml.v*.so"))), mode=ctypes.RTLD_GLOBAL)
llama = ctypes.CDLL(str(next(package.glob("libllama.v*.so"))))


class Params(ctypes.Structure):
    # Parameters travel by value, on the stack; more bytes than the library's own structs have do no harm.
    _fields_ = [("words", ctypes.c_uint32 * 128)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


pointer, floats = ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)
for name, result, arguments in [
    ("model_default_params", Params, []), ("context_default_params", Params, []), ("free", None, [pointer]),
    ("model_load_from_file", pointer, [ctypes.c_char_p, Params]), ("init_from_model", pointer, [pointer, Params]),
    ("model_get_vocab", pointer, [pointer]), ("vocab_n_tokens", ctypes.c_int32, [pointer]),
    ("tokenize", ctypes.c_int32, [pointer, ctypes.c_char_p, ctypes.c_int32, pointer, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]),
    ("batch_init", Batch, [ctypes.c_int32] * 3), ("decode", ctypes.c_int32, [pointer, Batch]), ("get_logits", floats, [pointer]),
    ("adapter_lora_init", pointer, [pointer, ctypes.c_char_p]),
    ("set_adapters_lora", ctypes.c_int32, [pointer, ctypes.POINTER(pointer), ctypes.c_size_t, floats]),
]:
    function = getattr(llama, f"llama_{name}")
    function.restype, function.argtypes = result, arguments
quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda level, text, _: level >= 4 and print(text.decode(), end=""))
llama.llama_log_set(quiet, None)
ggml.ggml_backend_load_all_from_path.argtypes = ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
ggml.ggml_backend_load.restype = pointer
ggml.ggml_backend_load_all_from_path(str(package).encode())
llama.llama_backend_init()


def load_blas():
    """From here on products of 32 rows and more are made in f32 by OpenBLAS, of dequantised weights: activations are not
    rounded. The backend is built from the sources of the same release, which node-llama-cpp brings.
    Needs git, g++ and `apt-get install libopenblas-dev`."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = modules / "node-llama-cpp/llama/gitRelease.bundle"
        subprocess.run(["git", "clone", "-q", "-c", "advice.detachedHead=false", bundle, f"{folder}/llama.cpp"], check=True)
        source, library = f"{folder}/llama.cpp/ggml", f"{folder}/libggml-blas.so"
        defines = [f"-DGGML_{name}" for name in ("SHARED", "BACKEND_SHARED", "BACKEND_BUILD", "BACKEND_DL", "BLAS_USE_OPENBLAS")]
        include = [f"-I{source}/include", f"-I{source}/src"]
        files = [f"{source}/src/ggml-blas/ggml-blas.cpp", package / "libggml-base.so", "-lopenblas"]
        subprocess.run(["g++", "-O2", "-std=c++17", "-shared", "-fPIC", *defines, *include, *files, "-o", library], check=True)
        assert ggml.ggml_backend_load(library.encode()), "llama.cpp refuses the backend with OpenBLAS"


class LlamaCpp:
    """A GGUF file in llama.cpp; `repack` rewrites quantised weights for the processor's own products, as it does unless told."""

    def __init__(self, path, repack=True):
        params = llama.llama_model_default_params()
        assert params.words[18] & 0xFFFFFF == 0x010000, "another llama.cpp lays out its parameters differently"
        if not repack:
            params.words[18] ^= 0x010000  # use_extra_bufts
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp refuses {path}"
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.size = llama.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text):
        """The ids of a text, special tokens not among them."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = llama.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, False)
        assert count >= 0
        return list(ids[:count])

    def logits(self, ids, lora=None, exact=False):
        """f32 (T, V): the logits after each of `ids`, in a fresh context, with a GGUF adapter on the model; `exact` keeps
        keys and values in f32 instead of f16 and does without flash attention."""
        params = llama.llama_context_default_params()
        words = params.words
        assert (words[13], words[26], words[27]) == (2**32 - 1, 1, 1), "another llama.cpp lays out its parameters differently"
        words[0] = words[1] = words[2] = max(len(ids), 32)  # n_ctx, n_batch, n_ubatch
        words[7] = words[8] = os.cpu_count()  # n_threads, n_threads_batch
        if exact:
            words[13] = words[26] = words[27] = 0  # flash_attn_type, type_k, type_v
        context = llama.llama_init_from_model(self.model, params)
        assert context
        if lora:
            adapter = llama.llama_adapter_lora_init(self.model, str(lora).encode())
            assert adapter, f"llama.cpp refuses {lora}"
            assert llama.llama_set_adapters_lora(context, (pointer * 1)(adapter), 1, (ctypes.c_float * 1)(1.0)) == 0
        batch = llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, id in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = id, i, 1, 1
            batch.seq_id[i][0] = 0
        assert llama.llama_decode(context, batch) == 0
        values = np.ctypeslib.as_array(llama.llama_get_logits(context), (len(ids), self.size)).copy()
        llama.llama_free(context)
        return values


def write_exact(source, path):
    """The same GGUF file with every weight in f32."""
    reader = gguf.GGUFReader(source)
    out = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            out.add_key_value(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        out.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()

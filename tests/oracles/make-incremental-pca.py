# Golden values of scikit-learn's IncrementalPCA: iris, digits and three synthetic spectra.
#   pip install scikit-learn==1.9.1 safetensors && python tests/oracles/make-incremental-pca.py
# Writes tests/oracles/golden/incremental-pca.safetensors: for each case its rows as integers to be divided by the case's
# `divisor`, and what scikit-learn makes of them; how it was called is JSON in the metadata.
import json
import pathlib

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import IncrementalPCA

golden = pathlib.Path(__file__).parent / "golden"
rng = np.random.default_rng(42)


def spectrum(deviations, rows):
    d = len(deviations)
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    x = rng.standard_normal((rows, d)) * deviations @ turn.T + rng.standard_normal(d) * 3
    return np.round(x * 256).astype(np.int16)


axis = np.arange(1, 31)
cases = {
    "iris": (np.round(load_iris().data * 10).astype(np.uint8), 10, dict(n_components=3), [50, 50, 50]),
    "iris-open": (np.round(load_iris().data * 10).astype(np.uint8), 10, dict(whiten=True), [60, 3, 87]),
    "digits": (load_digits().data.astype(np.uint8), 1, dict(n_components=16), [200] * 8 + [197]),
    "power-law": (spectrum(8.0 / axis, 240), 256, dict(n_components=6), [100, 7, 133]),
    "exponential": (spectrum(8.0 * 0.7 ** axis, 240), 256, dict(n_components=8, whiten=True), [40] * 6),
    "planted": (spectrum(np.where(axis <= 5, 6.0 - axis * 0.8, 0.3), 240), 256, dict(n_components=5, batch_size=64), None),
}
tensors, facts = {}, {}
shared = {"iris-open": "iris"}
for name, (data, divisor, options, batches) in cases.items():
    x = data.astype(np.float64) / divisor
    pca = IncrementalPCA(**options)
    if batches is None:
        pca.fit(x)
    else:
        assert sum(batches) == len(x)
        for part in np.split(x, np.cumsum(batches)[:-1]):
            pca.partial_fit(part)
    if name not in shared:
        tensors[f"{name}/x"] = data
    found = {
        "components": pca.components_, "explainedVariance": pca.explained_variance_,
        "explainedVarianceRatio": pca.explained_variance_ratio_, "singularValues": pca.singular_values_,
        "mean": pca.mean_, "var": pca.var_, "noiseVariance": np.array([pca.noise_variance_]),
        "transform": pca.transform(x[:5]), "inverseTransform": pca.inverse_transform(pca.transform(x[:5])),
    }
    for key, value in found.items():
        tensors[f"{name}/{key}"] = np.ascontiguousarray(value, dtype=np.float64)
    facts[name] = {
        "x": shared.get(name, name), "divisor": divisor, "nComponents": options.get("n_components"),
        "whiten": options.get("whiten", False), "batchSize": options.get("batch_size"), "batches": batches,
        "nSamplesSeen": int(pca.n_samples_seen_),
    }
save_file(tensors, golden / "incremental-pca.safetensors", {"cases": json.dumps(facts)})

# What it refuses, and with which words: tests/pca/incremental-pca.test.ts refuses the same.
ok = np.random.default_rng(1).standard_normal((6, 4))
for label, call in {
    "k > d": lambda: IncrementalPCA(5).partial_fit(ok),
    "k > first batch": lambda: IncrementalPCA(3).partial_fit(ok[:2]),
    "k > later batch": lambda: IncrementalPCA(3).partial_fit(ok).partial_fit(ok[:2]),
    "features change": lambda: IncrementalPCA(2).partial_fit(ok).partial_fit(ok[:, :3]),
    "k = 0": lambda: IncrementalPCA(0).partial_fit(ok),
    "empty": lambda: IncrementalPCA(2).partial_fit(ok[:0]),
    "nan": lambda: IncrementalPCA(2).partial_fit(ok * np.nan),
    "unfitted": lambda: IncrementalPCA(2).transform(ok),
    "transform width": lambda: IncrementalPCA(2).partial_fit(ok).transform(ok[:, :3]),
}.items():
    try:
        call()
        print(f"{label}: accepted")
    except Exception as error:
        print(f"{label}: {type(error).__name__}: {str(error).splitlines()[0]}")

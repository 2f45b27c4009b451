"""Run in three images after each other: rows are transformed, a network is fitted to them, and asked in both others.

python transform_graph.py INPUT OUTPUT; INPUT holds the rows, and what the step before wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

FEATURES = {
    "distance": "scale",
    "fare": {"bucketize": 4},
    "zone": {"vocabulary": 2},
    "driver": {"hash": 8},
    "gap": "scale",
    "night": "scale",
    "note": "vocabulary",
}


def main(given: Path, output: Path) -> None:
    if not (given / "graph").exists():
        from penstock.components.transformation.transform import transform

        sets = [(str(given / name), "") for name in ("train", "eval")]
        names = ("transformed_train", "transformed_eval", "graph")
        transform(*sets, *(output / name for name in names), features=FEATURES, keep=["tipped"])
    elif not (given / "model").exists():
        from penstock.components.training.fit import fit

        fit(
            given / "train",
            given / "eval",
            output / "model",
            target="tipped",
            framework="keras",
            transform_graph=given / "graph",
            max_rounds=8,
        )
    else:
        (output / "predictions.json").write_text(json.dumps(predictions(given)))


def as_read(values: np.ndarray, kind: str) -> np.ndarray:
    """Return numbers as the network reads them; those that stand for something are texts."""
    return values.astype(np.float64) if kind != "string" else values.astype(str).astype(object)


def predictions(given: Path) -> dict[str, list[float]]:
    """Return the probabilities of the evaluation rows through each door of the model."""
    import keras
    import tensorflow as tf

    from penstock.components.deployment.serving import payloads, served
    from penstock.components.deployment.serving.settings import Settings

    model = given / "model"
    serving = served.load(Settings(model=str(model)))
    raw = pq.read_table(given / "eval" / "part-00000.parquet")
    rows = raw.select([field.name for field in serving.signature.inputs]).to_pylist()
    for row in rows:
        row["gap"] = None if row["gap"] != row["gap"] else row["gap"]  # JSON has no NaN
    body = json.dumps({"instances": rows}).encode()
    answer = serving.predict(payloads.read(payloads.PROTOCOLS["vertex"], payloads.JSON, body, serving.signature))
    network = keras.saving.load_model(model / "model.keras", compile=False, safe_mode=True)
    made = pq.read_table(given / "transformed_eval" / "part-00000.parquet")
    columns = {each.name: as_read(made[each.name].to_numpy(), each.dtype)[:, None] for each in network.inputs}
    signature = tf.saved_model.load(str(model / "saved_model")).signatures["serving_default"]
    given_raw = {}
    for name, spec in signature.structured_input_signature[1].items():
        if spec.dtype == tf.string:
            values = raw[name].fill_null("").to_numpy(zero_copy_only=False).astype(object)
        else:
            values = raw[name].to_pandas().to_numpy().astype(spec.dtype.as_numpy_dtype)
        given_raw[name] = tf.constant(values[:, None])
    return {
        "served": answer["probability_true"].tolist(),
        "frame": serving.model.predict(raw.to_pandas())[:, 1].tolist(),
        "saved_model": signature(**given_raw)["output_0"].numpy()[:, 0].tolist(),
        "network": network(columns).numpy()[:, 0].tolist(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""What has an engine on Beam, run there, for the proof of the image."""

from kfp import dsl

from penstock.components import ingest, validate
from penstock.components.images import image


@dsl.pipeline(name="beam-smoke")
def on_beam(source: str = "sample://taxi?rows=2000"):
    data = ingest(source=source, engine="beam").set_container_image(image("beam"))
    validate(dataset=data.outputs["train_set"], engine="beam").set_container_image(image("beam"))

"""What is put around moto's classes is taken away again."""

from typing import Any

from moto.rds.models import DBInstance, RDSBackend

from tests import moto_classes
from twin.aws import acm, dynamodb, route53


def test_each_class_is_as_it_was() -> None:
    backend: Any = RDSBackend
    instance: Any = DBInstance
    before = moto_classes._attributes()
    with moto_classes.kept():
        acm.patch_certificates()
        dynamodb.patch_recovery()
        route53.patch_names()
        backend.create_db_instance = None
        backend.added = lambda _: None
        instance.address = property(lambda _: "elsewhere")
        assert moto_classes._attributes() != before
    assert moto_classes._attributes() == before

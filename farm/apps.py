from django.apps import AppConfig
from django.conf import settings


class FarmConfig(AppConfig):
    name = "farm"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if settings.RING_ON_TRANSITION:
            from farm import signals  # noqa: F401, PLC0415  Django asks for receivers to be connected here

from django.apps import AppConfig


class PressPassConfig(AppConfig):
    name = "presspass"
    verbose_name = "Press Pass"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from presspass import checks  # noqa: F401, PLC0415  Django asks for checks to be registered here

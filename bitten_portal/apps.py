from django.apps import AppConfig

from bitten_portal import checks

__all__ = ["PortalConfig", "checks"]


class PortalConfig(AppConfig):
    """Makes an app of the house itself, so that its system checks are known."""

    name = "bitten_portal"

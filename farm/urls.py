"""The farm's addresses: for hosts, not for people."""

from __future__ import annotations

from django.urls import path

from farm.views import keepsake

urlpatterns = [
    path("keepsake/<str:token>/", keepsake, name="keepsake"),
]

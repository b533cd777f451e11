"""The addresses of the whole site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from bitten_portal.health import healthz
from presspass.views import staff

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("admin/login/", staff.sign_in),
    path("admin/", admin.site.urls),
    path("", include("farm.urls")),
    path("", include("presspass.urls")),
]

handler403 = "presspass.views.error_403"
handler404 = "presspass.views.error_404"
handler500 = "presspass.views.error_500"

"""What customers type: an address, and to go live a plan and a broker login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crispy_forms.bootstrap import StrictButton
from crispy_forms.helper import FormHelper
from crispy_forms.layout import Div, Field, Layout
from django import forms
from django.conf import settings
from django.urls import reverse

from presspass import addresses, logins
from presspass.models import Plan

TRAP = "website"
SHOWN_AT_MOST = 100


class AddressForm(forms.Form):
    """One e-mail field, and a trap that people do not see and programs fill in."""

    button = "Send me a link"
    action = "presspass:sign_in"

    email = forms.CharField(
        label="Your e-mail address",
        max_length=1000,  # far more is not worth reading; the real limit has words of its own
        widget=forms.EmailInput(
            attrs={"autocomplete": "email", "inputmode": "email", "placeholder": "name@example.com", "maxlength": None}
        ),
        error_messages={"required": "Type your e-mail address."},
    )
    website = forms.CharField(
        required=False,
        label="Leave this empty",
        widget=forms.TextInput(attrs={"autocomplete": "off", "tabindex": "-1"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The browser's own check runs in the customer's words too, but refuses addresses in other scripts without a
        # reason; ours gives one.
        self.helper = FormHelper()
        self.helper.form_action = reverse(self.action)
        self.helper.attrs = {"novalidate": ""}
        self.helper.form_class = "ask"
        self.helper.layout = Layout(
            Field("email"),
            Div(Field(TRAP), css_class="trap", aria_hidden="true"),
            StrictButton(self.button, type="submit", css_class="btn btn-primary"),
        )

    @property
    def is_robot(self) -> bool:
        return bool(str(self.data.get(TRAP, "")).strip())

    def clean_email(self) -> str:
        return addresses.normalised(str(self.cleaned_data["email"]))


class SignUpForm(AddressForm):
    button = "Start my terminal"
    action = "presspass:start"

    def clean_email(self) -> str:
        email = super().clean_email()
        if settings.REFUSE_DISPOSABLE and addresses.is_disposable(email):
            raise addresses.BadAddress(
                "That mailbox is one that vanishes, and with it the way back to your terminal. Use one that stays.",
                code="disposable",
            )
        return email


def _is_hidden(value: object) -> bool:
    return isinstance(value, str) and (len(value) > SHOWN_AT_MOST or not value.isprintable())


class LoginForm(forms.Form):
    """A broker login. The password goes one way: the page that shows what is wrong has an empty field again."""

    button = "Try this login"

    # No limits of the browser's and no trimming: what is wrong is said in words, and a password is kept as typed.
    server = forms.CharField(
        label="Broker server",
        strip=False,
        required=False,
        widget=forms.TextInput(attrs={"list": "servers", "autocomplete": "off", "spellcheck": "false"}),
        help_text="Pick it from the list or type it exactly as in your broker's mail.",
    )
    login = forms.CharField(
        label="Login",
        strip=False,
        required=False,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
        help_text="The number of your account.",
    )
    password = forms.CharField(
        label="Password",
        strip=False,
        required=False,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "off"}),
        help_text="The one that may trade. It is encrypted as soon as it is here; nobody of ours can read it.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.helper = FormHelper()
        self.helper.form_tag = False
        self.helper.disable_csrf = True
        self.helper.layout = Layout(*(Field(name) for name in self.fields))
        self._typed = {name: str(self.data.get(name, "")) for name in ("server", "login", "password")}
        if self.is_bound:
            # What is far too long or cannot be seen is not shown again either.
            self.data = {name: value for name, value in self.data.items() if not _is_hidden(value)}

    def clean_server(self) -> str:
        return str(self._checked(logins.server, "server"))

    def clean_login(self) -> int:
        return int(self._checked(logins.number, "login"))

    def clean_password(self) -> str:
        return str(self._checked(logins.password, "password"))

    def _checked(self, check: Callable[[str], Any], name: str) -> Any:
        try:
            return check(self._typed[name])
        except logins.BadLogin as error:
            raise forms.ValidationError(str(error)) from None


class GoLiveForm(LoginForm):
    button = "Continue to payment"

    plan = forms.ModelChoiceField(
        queryset=Plan.objects.none(),
        empty_label=None,
        to_field_name="key",
        widget=forms.RadioSelect,
        error_messages={"required": "Choose a plan.", "invalid_choice": "Choose one of these plans."},
    )
    field_order = ("plan", "server", "login", "password")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plans = Plan.objects.filter(active=True)
        self.fields["plan"].queryset = plans  # type: ignore[attr-defined]
        first = plans.first()
        self.fields["plan"].initial = first.key if first else None
        self.helper.layout = Layout(Field("server"), Field("login"), Field("password"))

from django.urls import path

from presspass.views import account, golive, joining, keep, mailbox, stripe, terminal

app_name = "presspass"
urlpatterns = [
    path("", joining.start, name="start"),
    path("sign-in/", joining.sign_in, name="sign_in"),
    path("sign-in/sent/", joining.sent, name="sent"),
    path("sign-in/link/", joining.link, name="link"),
    path("sign-out/", joining.sign_out, name="sign_out"),
    path("terminal/", terminal.terminal, name="terminal"),
    path("terminal/state/", terminal.state, name="state"),
    path("terminal/confirm-address/", joining.confirm_address, name="confirm_address"),
    path("terminal/start-again/", terminal.start_again, name="start_again"),
    path("terminal/<int:instance_id>/restart/", terminal.restart, name="restart"),
    path("terminal/<int:instance_id>/end/", terminal.end, name="end"),
    path("terminal/<int:instance_id>/accept/", terminal.accept_slot, name="accept_slot"),
    path("keep/", keep.keep, name="keep"),
    path("account/", account.account, name="account"),
    path("account/export/", account.export, name="export"),
    path("account/delete/", account.delete, name="delete"),
    path("go-live/", golive.go_live, name="go_live"),
    path("go-live/pay/", golive.pay, name="pay"),
    path("go-live/cancel/", golive.cancel, name="cancel_payment"),
    path("go-live/paid/<int:checkout_id>/", golive.paid, name="paid"),
    path("go-live/money-back/", golive.money_back, name="money_back"),
    path("billing/", golive.billing, name="billing"),
    path("stripe/webhook/", stripe.webhook, name="stripe_webhook"),
    path("mail/", mailbox.mails, name="mails"),
    path("mail/<str:name>/", mailbox.mail, name="mail"),
]

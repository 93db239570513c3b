"""The pages of the stand-in: log-in, one-time code, consent, error. Plain HTML, no script.

Invariant: every page says that it is not for production.
"""

from collections.abc import Iterable
from html import escape

WARNING = "NOT FOR PRODUCTION: this is the stand-in issuer of authz's demonstration."

_SHELL = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 26rem; margin: 3rem auto; padding: 0 1rem }}
.warning {{ background: #b00; color: #fff; padding: .5rem; font-weight: bold }}
.error {{ color: #b00 }}
label {{ display: block; margin: .5rem 0 }}
input:not([type=hidden]) {{ width: 100%; font-size: 1rem; padding: .3rem }}
button {{ font-size: 1rem; padding: .3rem 1rem; margin: .5rem .5rem 0 0 }}
</style></head>
<body><p class="warning">{warning}</p><h1>{title}</h1>
{body}
</body></html>
"""


def _page(title: str, body: str) -> str:
    return _SHELL.format(title=escape(title), warning=escape(WARNING), body=body)


def _form(flow_id: str, error: str, fields: str) -> str:
    """Return a form that is sent to where its page is."""
    refused = f'<p class="error">{escape(error)}</p>' if error else ""
    return (
        f'{refused}<form method="post" action="?">'
        f'<input type="hidden" name="flow_id" value="{escape(flow_id)}">{fields}</form>'
    )


def _password(label: str = "Sign in") -> str:
    return (
        '<label>Password <input name="password" type="password" required></label>'
        f"<button>{escape(label)}</button>"
    )


def login(flow_id: str, client_id: str, error: str = "") -> str:
    """Return the page of the first factor."""
    fields = '<label>Username <input name="username" required autofocus></label>' + _password()
    about = f"<p>to go on to <b>{escape(client_id)}</b></p>" if client_id else ""
    return _page("Sign in", about + _form(flow_id, error, fields))


def one_time_code(flow_id: str, username: str, error: str = "") -> str:
    """Return the page of the second factor."""
    fields = (
        '<label>One-time code <input name="code" inputmode="numeric" autocomplete="one-time-code"'
        " required autofocus></label><button>Continue</button>"
    )
    return _page(f"Hello, {username}", _form(flow_id, error, fields))


def password_again(flow_id: str, client_id: str, error: str = "") -> str:
    """Return the page that asks for the password again (`prompt=login`, `max_age`)."""
    about = f"<p><b>{escape(client_id)}</b> wants a fresh log-in.</p>"
    return _page("Your password again", about + _form(flow_id, error, _password("Go on")))


def consent(flow_id: str, client_id: str, scopes: Iterable[str]) -> str:
    """Return the page that asks for consent."""
    wanted = "".join(f"<li>{escape(scope)}</li>" for scope in scopes)
    fields = (
        '<button name="decision" value="accept">Accept</button>'
        '<button name="decision" value="reject">Deny</button>'
    )
    about = f"<p><b>{escape(client_id)}</b> asks for:</p><ul>{wanted}</ul>"
    return _page("Consent", about + _form(flow_id, "", fields))


def message(title: str, text: str) -> str:
    """Return a page that says one thing."""
    return _page(title, f"<p>{escape(text)}</p>")

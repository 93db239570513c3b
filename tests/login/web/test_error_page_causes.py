"""Every error page is explained to the operator by the note that the log has of it."""

import pytest

from authz.login.clients.faults import DocumentFault
from authz.login.clients.lookup import DocumentError
from authz.login.web import approval, error_pages, step_up
from authz.login.web.error_page_causes import cause_of_page
from authz.login.web.error_pages import ErrorPage, no_document, not_granted

PAGES = [
    page
    for module in (error_pages, step_up, approval)
    for page in vars(module).values()
    if isinstance(page, ErrorPage)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.note)
def test_every_page_has_a_cause_of_its_own(page: ErrorPage) -> None:
    """A page that nobody explains would send an operator after a client's request."""
    cause = cause_of_page(page.note or page.happened)

    assert cause.shown == page.happened
    assert cause.fix


def test_pages_that_say_what_a_client_asked_lead_to_the_line_of_its_step() -> None:
    """Their sentences hold an error of OAuth, so that they are told by kind."""
    documents = {cause_of_page(no_document(DocumentError(fault)).note) for fault in DocumentFault}
    granted = cause_of_page(not_granted("invalid_scope", "x").note)

    assert len(documents) == 1
    assert documents.isdisjoint({granted})
    assert "invalid_scope" in granted.fix

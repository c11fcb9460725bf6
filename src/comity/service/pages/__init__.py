"""The pages of a hub: what an operator, an auditor and a party see in a browser, and what an operator does there."""

from comity.service.pages.views import pages as pages

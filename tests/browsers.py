"""Debian's Chromium under Playwright, for tests of pages."""

import contextlib
import shutil

_NAMES = ('chromium', 'chromium-browser', 'google-chrome')
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
MISSING = 'chromium is not installed: apt-get install chromium'
# WebGL without a graphics card.
_ARGUMENTS = (
  '--no-sandbox',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--ignore-gpu-blocklist',
)


@contextlib.contextmanager
def launched():
  """A browser without window."""
  from playwright.sync_api import sync_playwright

  with sync_playwright() as started:
    browser = started.chromium.launch(
      executable_path=CHROMIUM, args=list(_ARGUMENTS)
    )
    yield browser
    browser.close()

"""HTML pages as tests look at them."""

import html
import html.parser
import re
import shutil
import subprocess

import pytest


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.source, self.tags, self.text = text, [], ''
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_whole(page):
    """Nothing is asked of a network, every picture has a text, no name is there twice."""
    asked = [a[key] for _, a in page.tags for key in ('src', 'href', 'srcset') if a.get(key)]
    assert all(re.match(r'data:image/|#', address) for address in asked)
    assert 'url(' not in page.source
    assert '@import' not in page.source
    assert not page.all('link')
    assert not page.all('script')
    assert all(image['alt'] for image in page.all('img'))
    ids = [attributes['id'] for _, attributes in page.tags if attributes.get('id')]
    assert len(ids) == len(set(ids))


def at_390_pixels(path, folder):
    """Returns the width of a page in a browser, and how many of its images are shown and broken."""
    names = ('chromium', 'chromium-browser', 'google-chrome')
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f'None of {", ".join(names)} is installed.')
    # A frame, since windows below 500 pixels are not granted.
    frame = folder / 'frame.html'
    inside = html.escape(path.read_text())
    frame.write_text(
        f'<iframe width=390 height=800 style="border:0" srcdoc="{inside}">'
        '</iframe><script>addEventListener("load", () => {'
        'const page = document.querySelector("iframe").contentDocument;'
        'const images = [...page.images].filter(i => i.checkVisibility());'
        'document.title = [page.documentElement.scrollWidth, images.length,'
        'images.filter(i => !i.naturalWidth).length]; })</script>'
    )
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr',
         f'--user-data-dir={folder}', '--virtual-time-budget=10000', '--dump-dom',
         frame.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert 'CONSOLE' not in done.stderr
    return map(int, re.search(r'<title>([\d,]+)', done.stdout)[1].split(','))

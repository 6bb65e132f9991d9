"""Takes a picture of TensorBoard's page of a run, in a headless Chromium.

python docs/screenshot_tensorboard.py LOGDIR PICTURE [TAG_FILTER]

Needs ``pip install playwright tensorboard`` and a Chromium on the path.
"""

import shutil
import subprocess
import sys
import time
from urllib.parse import quote

from playwright.sync_api import sync_playwright

PORT = 6123
TAGS = "test_loss/(actual|empirical|trivial|active_nodes)$|empirical/(train|val|test)$|histogram"


def main(logdir: str, picture: str, tags: str = TAGS) -> None:
    """Starts TensorBoard, waits for the page and saves it."""
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", str(PORT)])
    try:
        time.sleep(15)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1500, "height": 1460})
            page.goto(f"http://localhost:{PORT}/?smoothing=0&tagFilter={quote(tags)}#timeseries")
            page.wait_for_selector("scalar-card, histogram-card", timeout=60_000)
            page.get_by_role("button", name="Settings").first.click()  # the settings take a fifth of the page
            time.sleep(10)
            page.screenshot(path=picture)
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])

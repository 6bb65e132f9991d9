"""Takes pictures of TensorBoard's pages of a run, in a headless Chromium.

python docs/screenshot_tensorboard.py LOGDIR FOLDER

Writes tensorboard_<tab>.png for each tab. Needs ``pip install playwright tensorboard`` and a Chromium on the path.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PORT = 6123
SECONDS_TO_LOAD = 15

#: For each tab, the height of the picture in pixels. The first one is what TensorBoard shows on landing.
TABS = {"timeseries": 620, "custom_scalars": 1150, "images": 1060, "text": 800, "hparams": 520}


def main(logdir: str, folder: str) -> None:
    """Starts TensorBoard, opens one tab after another and saves what it shows."""
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", str(PORT)])
    try:
        time.sleep(SECONDS_TO_LOAD)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for tab, height in TABS.items():
                page = browser.new_page(viewport={"width": 1500, "height": height})
                page.goto(f"http://localhost:{PORT}/?smoothing=0#{tab}")
                time.sleep(SECONDS_TO_LOAD)
                if tab == "custom_scalars":
                    show_values_as_they_are(page)
                page.screenshot(path=Path(folder) / f"tensorboard_{tab}.png")
            browser.close()
    finally:
        server.terminate()


def show_values_as_they_are(page: Page) -> None:
    """Sets the tab's own smoothing to 0, which the address does not reach, and takes far values into the axes."""
    page.get_by_text("Ignore outliers in chart scaling").click()
    box = page.locator("tf-smoothing-input input").first
    box.fill("0")
    box.press("Enter")
    time.sleep(5)


if __name__ == "__main__":
    main(*sys.argv[1:])

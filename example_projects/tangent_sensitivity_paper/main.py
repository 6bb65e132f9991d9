"""The networks of Daróczy (2022), with everything measured that the paper's figures and tables need."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from common import ExampleCLI, ImageData
from paper_network import PaperClassifier, write_active_nodes


class PaperCLI(ExampleCLI):
    """The examples' command line; beside HISTORY.csv it writes HISTORY_active_nodes.csv."""

    def after_fit(self) -> None:
        super().after_fit()
        if self.config.fit.history_csv and self.trainer.is_global_zero:
            history = Path(self.config.fit.history_csv)
            write_active_nodes(self.model, self.datamodule, history.with_name(f"{history.stem}_active_nodes.csv"))


if __name__ == "__main__":
    # a run that goes on finds the file of its settings there already
    PaperCLI(PaperClassifier, ImageData, subclass_mode_data=True, save_config_kwargs={"overwrite": True})

"""Write docs/data.md anew."""

from tests.data_contract import PAGE, text

PAGE.write_text(text(), encoding="utf-8")

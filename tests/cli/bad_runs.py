"""The command line run in this process, and what every refusal of it must look like."""

import pytest

from elastic_cnn.cli import main


class Shell:
    """Runs `elastic` commands and keeps what they said. `last`: the exit code; `out`, `err`: the streams."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd
        self.out = self.err = ""

    def run(self, *words: object) -> int:
        self.capfd.readouterr()
        code = main([str(word) for word in words])
        self.out, self.err = self.capfd.readouterr()
        assert "Traceback" not in self.out + self.err
        return code

    def refuses(self, *words: object, named: str, says: str = "") -> str:
        """Exit code 2 and one line of error that names the file (or key) and says what is wrong; returns the line."""
        code = self.run(*words)
        errors = [line for line in self.err.splitlines() if line.startswith("elastic: error: ")]
        assert code == 2, (code, self.err, self.out)
        assert len(errors) == 1, self.err
        assert "a fault in the program" not in errors[0]
        assert named in errors[0], errors[0]
        assert says in errors[0], errors[0]
        others = [
            line for line in self.err.splitlines() if not line.startswith(("elastic: error: ", "elastic: warning"))
        ]
        assert not others, others
        return errors[0]

"""Secrets are known by what they are called, by their value in any coding, and by their shape."""

import base64
import html
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.commands.evidence import page_of
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.reach import Command
from runbook_lib.sources.http import make_request
from runbook_lib.sources.redact import MARK, Redactor

from ..sources.conftest import World

SECRETS = [f"{odd}k{number:02d}-Secr3t{odd}{number * 7919:x}" for odd in ("", "/+%", "'\"\\ &<")
           for number in range(20)]  # fmt: skip
CODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, url-safe, no padding": lambda text: (
        base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    ),
    "base64 in lines": lambda text: base64.encodebytes(f"{'pad' * 18}{text}".encode()).decode(),
    "basic": lambda text: "Basic " + base64.b64encode(f"user:{text}".encode()).decode(),
    "basic, other user": lambda text: base64.b64encode(f"ada:{text}".encode()).decode(),
    "url": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "url, twice, in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(quote(text, safe=""), safe="")
    ),
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps({"x": text})),
    "json, letters escaped": lambda text: "".join(f"\\u{ord(each):04x}" for each in text),
    "shell": shlex.quote,
    "shell, by backslashes": lambda text: re.sub(r"([^\w])", r"\\\1", text),
    "html": html.escape,
    "html, numbered": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "hex": lambda text: text.encode().hex(),
    "hex of upper case": lambda text: text.encode().hex().upper(),
}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    for number, secret in enumerate(SECRETS):
        monkeypatch.setenv(f"PLANTED_{number}", secret)
    return Redactor(f"PLANTED_{number}" for number in range(len(SECRETS)))


def spellings() -> dict[str, str]:
    return {f"{name} {number}": code(secret) for name, code in CODINGS.items()
            for number, secret in enumerate(SECRETS)}  # fmt: skip


@pytest.mark.parametrize("coding", CODINGS)
def test_no_secret_of_ours_is_left_in_any_coding(named: Redactor, coding: str) -> None:
    """What stands around it does, and nothing of the secret's own."""
    for secret in SECRETS:
        spelt = CODINGS[coding](secret)
        cleaned = named.clean_text(f"before: {spelt} :after")
        assert MARK in cleaned
        assert cleaned.startswith("before: ")
        assert cleaned.endswith(" :after")
        assert not any(part in cleaned for part in (spelt, secret, spelt[4:-4]))


def test_none_stands_in_any_byte_of_a_tape(named: Redactor, tmp_path: Path) -> None:
    """Bodies, keys, headers, failures, commands' words and what they leave in files; nor is one judged."""
    world, texts = World(tmp_path / "tape", frozenset(named._names)), spellings()
    everything = "\n".join(f"{name} {text}" for name, text in texts.items())

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/fails":
            raise httpx.ReadError(everything)
        text = request.url.params["q"]
        return httpx.Response(200, text=text, headers={"link": quote(text)})

    scope = world.scope(answer)
    parts = ["\n".join(map(code, SECRETS)) for code in CODINGS.values()]
    asked = [make_request("GET", "http://node/", params=(("q", part),)) for part in parts]
    answered = [each.content for each in scope.http(asked)]
    [failed] = scope.http([make_request("GET", "http://node/fails")], retries=1)
    (tmp_path / "said").write_text(everything)
    code = "import sys; text = open(sys.argv[1]).read(); print(text); sys.exit(text)"
    command = Command(argv=[sys.executable, "-c", code, str(tmp_path / "said")])
    said = b"".join([scope.run(command).stdout, failed.reason_phrase.encode(), *answered])
    with (tmp_path / "lock").open("w") as lock:
        outputs = tmp_path / "tape" / "step"
        scope.run(command, purpose="change", lock=lock.fileno(), outputs=outputs)
    scope.derive("what was found", lambda: everything)
    world.close()

    written = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    assert len(answered) == len(CODINGS)
    assert written.count(MARK.encode()) > 6 * len(SECRETS)
    left = {name for name, text in texts.items() if text.strip().encode() in written + said}
    assert left | {secret for secret in SECRETS if secret.encode() in written + said} == set()


def test_none_stands_in_any_byte_of_an_attempt_or_of_its_page(
    named: Redactor, practice: Any
) -> None:
    """A file that is read, an exception, a notebook's output: none in log, tape, notebook, HTML."""
    texts = spellings()
    everything = "\n".join(f"{name} {text}" for name, text in texts.items())
    practice.write_site(secrets_env=[f"PLANTED_{number}" for number in range(len(SECRETS))])
    practice.world.write_text(everything)
    stage = practice.open()
    path = practice.write_notebook(practice.walk(stage, smoke_suites=RuntimeError(everything)))
    book = nbformat.read(path, as_version=4)
    code = next(cell for cell in book.cells if cell.cell_type == "code")
    code.outputs = [
        nbformat.v4.new_output("stream", text=everything),
        nbformat.v4.new_output("display_data", data={"text/html": f"<b>{everything}</b>"}),
    ]
    nbformat.write(book, path)
    seal_by_hand(practice.folder())

    files = [path for path in practice.folder().rglob("*") if path.is_file()]
    written = b"\n".join([page_of(path).encode(), *(path.read_bytes() for path in files)])
    assert len(files) > 4
    assert {s for s in (*SECRETS, *texts.values()) if s.strip().encode() in written} == set()


# --- documents ------------------------------------------------------------------------------------

NODE = """# kept: port and peers
listen = "0.0.0.0:7600"  # also kept
auth_token = 'hunter-one'
"api_key" = "hunter-two"
'Pass-Phrase' = '''
hunter-three
hunter-four'''
"pass\\u0077ord" = \"\"\"hunter-five \\
   hunter-six\"\"\"
secret_key_path = "/etc/node/secret.key"
tokens = ["hunter-seven", {value = "hunter-eight", file = "/etc/token"}]
store = {kind = "s3", "credentials" = {user = "hunter-nine"}}
pin_token = 12345678
empty_password = ""
enabled_secret = true
note = "see password: hunter-ten"
[per_ip_token_bucket]
burst = 120
[[backends]]
name = "a"
client.secret = "hunter-eleven"
[secrets]
backend = "vault"
seed = "hunter-twelve"
"""


def test_a_nodes_file_loses_its_secrets_and_stays_toml_with_its_comments() -> None:
    """By the parsed key, whatever the quoting; numbers too, but no switch, no place and no bucket."""
    cleaned = Redactor().clean_text(NODE)

    assert "hunter" not in cleaned
    assert cleaned.startswith('# kept: port and peers\nlisten = "0.0.0.0:7600"  # also kept\n')
    table = tomllib.loads(cleaned)
    assert table == {
        "listen": "0.0.0.0:7600",
        "auth_token": MARK,
        "api_key": MARK,
        "Pass-Phrase": MARK,
        "password": MARK,
        "secret_key_path": "/etc/node/secret.key",
        "tokens": [MARK, {"value": MARK, "file": "/etc/token"}],
        "store": {"kind": "s3", "credentials": {"user": MARK}},
        "pin_token": MARK,
        "empty_password": "",
        "enabled_secret": True,
        "note": f"see password: {MARK}",
        "per_ip_token_bucket": {"burst": 120},
        "backends": [{"name": "a", "client": {"secret": MARK}}],
        "secrets": {"backend": "vault", "seed": MARK},
    }
    assert Redactor().clean_text(cleaned) == cleaned


QUOTINGS = ['"{}"', "'{}'", '"""{}"""', "'''{}'''", '"""\n{}"""', '["{}"]', '[["a", "{}"]]', '{{a = "{}"}}']  # fmt: skip
TOML_KEYS = ["{}", '"{}"', "'{}'", "a.{}", 'a."{}"', "A_{}", "{}2", "my-{}"]


@given(
    st.sampled_from(["token", "client_secret", "api-key", "API_KEY", "private_key", "passphrase"]),
    st.sampled_from(TOML_KEYS), st.sampled_from(QUOTINGS), st.from_regex("[a-z]{3,9}[0-9]", fullmatch=True),
    st.sampled_from(["", "x = 1\n", "[t]\n", "[[t]]\n", "# token = 'no'\n", "n = nan\n"]),
)  # fmt: skip
def test_any_quoting_of_key_and_value_of_toml(
    word: str, key: str, quoting: str, value: str, head: str
) -> None:
    """What was valid stays valid, with the same keys."""
    text = f"{head}{key.format(word)} = {quoting.format(value)}\n"
    cleaned = Redactor().clean_text(text)
    assert value not in cleaned
    assert str(tomllib.loads(cleaned)).replace(MARK, value) == str(
        tomllib.loads(text.replace('["a"', f'["{value}"'))
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"pass\\u0077ord": "hunter1"}',
        '{"tokens": ["hunter1", {"a": ["hunter2"]}], "x": 1}',
        '{"Authorization": {"scheme": "hunter1"}}',
        '{"apiKey":"hunter1"}\n{"x-api-key" : "hunter2"}\n',
        'HTTP/1.1 200 OK\r\ncookie: a=hunter1; b=hunter2\r\n\r\n{"secret": [["hunter3"]], "n": 1}',
        '{"password": 12345, "password": "hunter1"}',
        '{"cut": 1, "password": "hunter1',
        '{"token": ' + '["hunter1",' * 5000,
        '{"token": ' + '{"a":' * 5000 + '"hunter1"',
        "private: |\n  text\nmap:\n  private_key: |\n    hunter1\n    hunter2\n",
        "tokens:\n- hunter1\n- {a: hunter2}\n",
        "'api key': &here >-\n  hunter1\n---\n? passphrase\n: hunter2\n",
        "user: ada\npassword: hunter1\n",
        "PASSWORD=hunter1 login --token hunter22 --x",
        "export API_KEY='hunter1' # kept",
        'RUN ["ops/x", "--client-secret", "hunter1"]',
        "said {'password': 'hunter1'}",
        'said \\"auth_token\\": \\"hunter1\\"',
        "Set-Cookie: session=hunter1; Path=/",
        "authorization: Basic aHVudGVyMTpodW50ZXIx",
        "to postgres://ada:hunter1@db/x",
    ],
)
def test_other_documents_and_text_lose_theirs(text: str) -> None:
    """Also where it is cut, nested without end, several in one, or prose around it."""
    cleaned = Redactor().clean_text(text)

    assert MARK in cleaned
    assert "hunter" not in cleaned
    assert "aHVudGVy" not in cleaned
    assert Redactor().clean_text(cleaned) == cleaned


def test_documents_that_lost_a_secret_are_still_read() -> None:
    """JSON keeps every other byte; YAML its values."""
    text = '{ "a":1.50,\n "token":["x-hunter"], "b" : 1e400,"a":2}'
    assert Redactor().clean_text(text) == text.replace("x-hunter", MARK)
    text = "# kept\na: 1\npassword: hunter22\nb: [x]\n"
    assert Redactor().clean_text(text) == text.replace("hunter22", MARK)
    found = yaml.safe_load(Redactor().clean_text("a: 2026-01-01\ntokens: [hunter1, x]\nb: on\n"))
    assert str(found) == "{'a': datetime.date(2026, 1, 1), 'tokens': ['[redacted]', '[redacted]'], 'b': True}"  # fmt: skip


SHAPES = {
    "GitHub": "ghp_" + "a1B2" * 9,
    "GitHub, fine-grained": "github_pat_" + "a1B2_" * 10,
    "GitLab": "glpat-" + "a1B2-" * 4,
    "AWS": "AKIA" + "A1B2" * 4,
    "Slack": "xoxb-1234567890-abcdefABCDEF",
    "Slack's hook": "https://hooks.slack.com/services/T00000000/B00000000/abcdefabcdefabcdef",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl-_",
    "Google": "AIza" + "a1B2_" * 7,
    "Grafana": "glsa_" + "a1B2" * 8 + "_0a1b2c3d",
    "Vault": "hvs." + "CAESI" * 5,
    "npm": "npm_" + "a1B2" * 9,
    "PEM": "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3Blb\\n-----END OPENSSH PRIVATE KEY-----",
    "PGP": "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQ\n-----END PGP PRIVATE KEY BLOCK-----",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "text", ["{}", "a: x {} y\n", '{{"a": "{}"}}', "a = '''{}'''\n", "<td>{}</td>"]
)
def test_known_shapes_of_tokens_are_taken_out_wherever_they_stand(shape: str, text: str) -> None:
    """Nobody has to name them."""
    cleaned = Redactor().clean_text(text.format(SHAPES[shape]))
    host = "https://hooks.slack.com/" if "hook" in shape else ""
    assert cleaned == text.format(host + MARK)


@pytest.mark.parametrize(
    "text",
    [
        "environment: GITHUB_TOKEN: expected a secret, got nothing; export it",
        "site: forge.token_env: expected text in quotes, got 5\nsecrets_env: [CHAT_WEBHOOK]\n",
        '{"per_ip_token_bucket": {"burst": 120}, "tokens_left": 5, "secret": true, "token": null}',
        '{"original": "route: {}\\nauthorization:\\n  type: Bearer\\n"}',
        "a basic validation, global-configuration-of-the-network, sk-1, ghp_short",
        "sha256:" + "0a" * 32,
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """A message of ours, a mask of another's, a key that says where or how many."""
    data = text.encode()
    assert Redactor().clean(data) is data


def test_a_number_that_is_a_secret_breaks_no_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare in a node's file, or what the tape says of an answer."""
    monkeypatch.setenv("PIN", "12345678")
    redactor: Any = Redactor(["PIN"])

    assert redactor.clean(b"# a\nport = 12345678\n") == b'# a\nport = "[redacted]"\n'
    assert redactor.clean_value({"bytes": 12345678, "text": "at 12345678"}) == {
        "bytes": MARK,
        "text": f"at {MARK}",
    }

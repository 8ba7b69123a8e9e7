"""The substitute's `influxd recovery auth create-operator`: a new operator token for a database that is stopped.

As the real 2.9.1's: the server chooses the token. It is printed once, in a table of all tokens in which the others
are "REDACTED", since only their hashes are kept.

    recovery.py recovery auth create-operator --username NAME --org NAME --bolt-path FILE
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from adapter import Json, State, digest, operator_rights

HEADER = ("ID", "User Name", "User ID", "Description", "Token", "Permissions")


def create_operator(state: State, username: str, org: str) -> list[tuple[str, ...]]:
    """Make the token and give the table's rows; raises LookupError."""
    user, owner = state.find("user", name=username), state.find("org", name=org)
    if user is None:
        raise LookupError(f'could not find user "{username}": user not found')
    if owner is None:
        raise LookupError(f'could not find org "{org}": organization name "{org}" not found')
    token = secrets.token_urlsafe(64) + "=="
    auth = {"hash": digest("token", token), "status": "active", "permissions": operator_rights()}
    auth |= {"description": f"{username}'s Recovery Token", "orgID": owner["id"], "org": org}
    new = state.put("auth", auth)
    return [
        (a["id"], user["name"], user["id"], a["description"], token if a is new else "REDACTED", _rights(a))
        for a in state.all("auth")
    ]


def _rights(auth: Json) -> str:
    def place(resource: Json) -> str:
        of = ["orgs", resource["orgID"]] if "orgID" in resource else []
        return "/".join([*of, resource["type"], *([resource["id"]] if "id" in resource else [])])

    return f"[{' '.join(p['action'] + ':' + place(p['resource']) for p in auth['permissions'])}]"


def table(rows: list[tuple[str, ...]]) -> str:
    """Align columns by tabs of eight."""
    widths = [max(map(len, column)) // 8 * 8 + 8 for column in zip(*rows, strict=True)]
    return "".join(
        "".join(
            cell + "\t" * -((len(cell) - width) // 8)
            for cell, width in zip(row[:-1], widths[:-1], strict=True)
        )
        + f"{row[-1]}\n"
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="influxd", allow_abbrev=False)
    parser.add_argument("words", nargs=3, choices=["recovery", "auth", "create-operator"])
    for name in ("--username", "--org", "--bolt-path"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    try:
        rows = create_operator(State(Path(given.bolt_path)), given.username, given.org)
    except (LookupError, OSError) as error:
        sys.exit(f"Error: {error}\nSee 'influxd -h' for help")
    print(table([HEADER, *rows]), end="")


if __name__ == "__main__":
    main()

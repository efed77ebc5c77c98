"""`crosslens keys`: make, list, revoke and rotate API keys, on the store itself, without a server's leave."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from indexer.cli.options import common_options, print_json, printable
from indexer.errors import InvalidRequest
from indexer.settings import Settings
from search_api.access.desk import key_store
from search_api.access.keys import Allowance, Role, new_key, parse_expiry, parse_moment, renewed
from search_api.access.store import no_key

if TYPE_CHECKING:
    from search_api.access.keys import Key, Token


@click.group()
def keys() -> None:
    """Keys of the HTTP API. Once there is one, every request needs one.

    A running server sees each change within two seconds.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice([role.value for role in Role]),
    help="What it is for; may be repeated. write and moderate include read, admin everything.",
)  # fmt: skip
@click.option(
    "--for", "collections", multiple=True, metavar="COLLECTION",
    help="A collection, or the beginning of names with a * behind it; may be repeated  [all]",
)  # fmt: skip
@click.option("--expires", metavar="WHEN", help="A span such as 90d, or a time such as 2027-01-31T12:00:00Z  [never]")
@click.option("--rate", type=float, help="Requests a second in the long run  [CROSSLENS_KEY_RATE]")
@click.option("--burst", type=int, help="Requests at once  [CROSSLENS_KEY_BURST]")
@click.option("--requests-per-day", type=int, help="[CROSSLENS_KEY_REQUESTS_PER_DAY]")
@click.option("--bytes-per-day", type=int, help="Bytes uploaded  [CROSSLENS_KEY_BYTES_PER_DAY]")
@click.option("--items-per-day", type=int, help="Items handed in  [CROSSLENS_KEY_ITEMS_PER_DAY]")
@common_options(collection=False)
def create(
    name: str,
    roles: tuple[str, ...],
    collections: tuple[str, ...],
    expires: str | None,
    settings: Settings,
    as_json: bool,
    **limits: float | None,
) -> None:
    """Make a key called NAME, and show it this once."""
    now = datetime.now(UTC)
    try:
        key, token = new_key(
            name, [Role(role) for role in roles], now=now, collections=collections,
            expires=parse_expiry(expires, now=now), allowance=Allowance.model_validate(limits),
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{first['loc'][0]}: {first['msg']}."
        raise InvalidRequest(said, remedy="See `crosslens keys create --help`.") from error
    with key_store(settings) as store:
        store.add(key)
    _show_once(key, token, now, as_json=as_json)


@keys.command(name="list")
@common_options(collection=False)
def list_keys(settings: Settings, as_json: bool) -> None:
    """List keys, also those that expired or were revoked."""
    now = datetime.now(UTC)
    with key_store(settings) as store:
        found = sorted(store.all().values(), key=lambda key: key.created)
    if as_json:
        print_json({"keys": [key.as_dict(now) for key in found]})
        return
    from rich.console import Console  # noqa: PLC0415  not for `crosslens --help`
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(Column("id", no_wrap=True), "name", "state", "roles", "collections", "expires", "used", box=None)
    for key in found:
        told = key.as_dict(now)
        cells = (key.id, key.name, told["state"], " ".join(told["roles"]), " ".join(key.collections) or "all")
        table.add_row(*(Text(cell) for cell in (*cells, _minute(key.expires), _minute(key.used))))
    Console().print(table)
    if not found:
        click.echo("There is no key: `crosslens serve` answers all that this machine asks, and nobody else.", err=True)


@keys.command()
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--forget", is_flag=True, help="Remove it from the list, too. Without any key left, none is demanded.")
@common_options(collection=False)
def revoke(key_ids: tuple[str, ...], forget: bool, settings: Settings, as_json: bool) -> None:
    """Revoke keys by their ids, which `crosslens keys list` shows."""
    now = datetime.now(UTC)
    with key_store(settings) as store:
        for key_id in key_ids:
            if forget:
                store.forget(key_id)
            else:
                store.change(key_id, lambda key: key.revoke(now))
    if as_json:
        print_json({"revoked": list(key_ids)})
        return
    click.echo(f"Revoked: {printable(', '.join(key_ids))}")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--overlap", metavar="SPAN", default="1d", show_default=True, help="How long the old key goes on.")
@click.option("--expires", metavar="WHEN", help="When the new one ends  [as the old one would have]")
@common_options(collection=False)
def rotate(key_id: str, overlap: str, expires: str | None, settings: Settings, as_json: bool) -> None:
    """Make a key that may do the same, and let the old one end. One that leaked is revoked instead."""
    now = datetime.now(UTC)
    ends = parse_moment(overlap, now=now)
    until = parse_expiry(expires, now=now)

    def ending(key: Key) -> Key:
        if (state := key.state(now)) != "active":
            raise InvalidRequest(f"The key {key_id} is {state}.", remedy="Make a new one: `crosslens keys create`.")
        return key.model_copy(update={"expires": min(ends, key.expires or ends)})

    with key_store(settings) as store:
        if (old := store.all().get(key_id)) is None:
            raise no_key(key_id)
        store.change(key_id, ending)
        key, token = renewed(old, now=now, expires=until)
        store.add(key)
    _show_once(key, token, now, as_json=as_json)
    if not as_json:
        click.echo(f"The old key {key_id} ends at {_minute(ends)}.", err=True)


def _show_once(key: Key, token: Token, now: datetime, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": str(token), **key.as_dict(now)})
        return
    click.echo(str(token))
    click.echo("This is shown once: keep it where secrets are kept. Next:", err=True)
    click.echo(f"  export CROSSLENS_KEY={token}", err=True)
    click.echo('  curl -H "Authorization: Bearer $CROSSLENS_KEY" http://127.0.0.1:8000/v1/collections', err=True)


def _minute(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "-"

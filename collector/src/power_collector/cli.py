"""The command `power-collector`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from power_collector import config as configuration
from power_collector import export
from power_collector.systemd import JournalFormatter, notify, stderr_is_the_journal

OK = 0
FAILED = 1
BAD_CONFIGURATION = 2
SOME_SILENT = 3

DEFAULT_CONFIG = Path("/etc/power-collector/config.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0: well, 1: failed, 2: bad configuration or usage, 3: a device was silent."""
    options = _parser().parse_args(arguments)
    _log_to_stderr(logging.DEBUG if options.verbose else options.level)
    try:
        code: int = options.command(options)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="power-collector", description="Reads the chargers and inverters of an off-grid power room."
    )
    parser.add_argument("--verbose", action="store_true", help="log each failed poll and write")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: object, text: str, level: int = logging.WARNING) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command, level=level)
        return sub

    def takes_config(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s"
        )

    run = add("run", _run, "collect until stopped (the service)", logging.INFO)
    takes_config(run)

    once = add("once", _once, "read every device once and print it; nothing is stored")
    takes_config(once)
    once.add_argument(
        "--format", choices=("table", "lp", "json"), default="table", help="default: %(default)s"
    )

    watch = add("watch", _watch, "live table from the running collector")
    watch.description = (
        "Live table from the running collector's latest.json, in the service's runtime directory. A collector"
        " that was started by hand writes one where RUNTIME_DIRECTORY is set, for both commands alike."
    )
    watch.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="refuse a collector that runs with other devices than these",
    )
    watch.add_argument("--svg", type=Path, metavar="FILE", help="at the end, draw the table to this file")

    probe = add("probe", _probe, "find the devices on the network, and say what they are; reads only")
    probe.add_argument(
        "targets", nargs="+", metavar="TARGET", help="HOST, HOST:PORT, or a range such as 192.168.1.0/24"
    )
    probe.add_argument("--port", metavar="PORTS", help="where TARGET has none; default: 502,1025")
    probe.add_argument(
        "--format", choices=("table", "json", "yaml"), default="table", help="default: %(default)s"
    )

    simulate = add(
        "simulate", _simulate, "a simulated room with the devices of a configuration", logging.INFO
    )
    takes_config(simulate)
    simulate.add_argument(
        "--bind", metavar="HOST", help="listen on this address instead of each device's own"
    )
    simulate.add_argument(
        "--log-answers", type=Path, metavar="FILE", help="write what was answered to this file"
    )
    simulate.add_argument(
        "--control", type=Path, metavar="FILE", help="read the faults to play from this file"
    )

    store = add("export", _export, "print what the local store holds, oldest first")
    store.description = export.DESCRIPTION
    takes_config(store)
    store.add_argument("--format", choices=("lp", "csv"), default="lp", help="default: %(default)s")

    check = add("check-config", _check, "name every fault of a configuration, with its place")
    check.add_argument("file", type=Path, metavar="FILE")
    return parser


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler()
    if stderr_is_the_journal():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _run(options: argparse.Namespace) -> int:
    from power_collector import latest, service

    config = configuration.load(options.config)

    async def run() -> NoReturn:
        async with service.stop_on_signals() as stop:
            saved = await service.run(
                config, stop, runtime_directory=latest.runtime_directory(), notify=notify
            )
        # All is done, but the interpreter would wait for names of devices that are looked up in vain.
        logging.shutdown()
        os._exit(OK if saved else FAILED)

    return asyncio.run(run())


def _once(options: argparse.Namespace) -> int:
    from power_collector import latest, once, summary

    config = configuration.load(options.config)
    polls, points = asyncio.run(once.read(config, int(time.time())))
    match options.format:
        case "lp":
            print("\n".join(point.to_line() for point in points))
        case "json":
            print(json.dumps([latest.point_table(point) for point in points], indent=1))
        case _:
            rows = summary.rows(config.devices, [latest.point_table(point) for point in points])
            print(summary.as_text(rows))
    return OK if all(poll.reading is not None for poll in polls) else SOME_SILENT


def _watch(options: argparse.Namespace) -> int:
    from power_collector import latest, watch

    directory = latest.runtime_directory() or latest.DEFAULT_DIRECTORY
    try:
        if options.config is not None:
            watch.check_devices(directory, configuration.load(options.config))
        watch.show(directory, svg=options.svg)
    except latest.NoCycleError as error:
        _complain(str(error))
        return FAILED
    except OSError as error:
        _complain(f"the picture cannot be written: {error}")
        return FAILED
    return OK


def _probe(options: argparse.Namespace) -> int:
    from power_collector import latest, probe
    from power_collector.probe import show

    try:
        targets = probe.parse(options.targets, options.port)
    except probe.TargetError as error:
        _complain(str(error))
        return BAD_CONFIGURATION
    held = latest.addresses(latest.runtime_directory() or latest.DEFAULT_DIRECTORY, time.time())
    if asked := held & {f"{target.host}:{port}" for target in targets for port in target.ports}:
        _complain(
            f"a collector runs here and reads {len(asked)} of these addresses: a device that serves one "
            "client at a time may refuse it or the probe for a moment; the probe then asks once more"
        )
    hosts = f"{len(targets)} host{'s' * (len(targets) != 1)}"
    _complain(f"asking {hosts} ...")
    begin = time.monotonic()
    findings = asyncio.run(probe.scan(targets, held=held))
    scanned = f"{' '.join(options.targets)}, {hosts}, on {time.strftime('%Y-%m-%d')}"
    _complain(f"{hosts} in {time.monotonic() - begin:.1f} s")
    match options.format:
        case "json":
            print(show.as_json(findings))
        case "yaml":
            print(show.as_yaml(findings, scanned))
        case _ if findings:
            print(show.as_table(findings) + "\n\n" + show.as_report(findings, scanned))
    if not any(finding.kind.driver for finding in findings):
        _complain("nothing was found that the collector can read; check power, cable, addresses and --port")
        return FAILED
    return SOME_SILENT if any(finding.kind is probe.Kind.MUTE for finding in findings) else OK


def _simulate(options: argparse.Namespace) -> int:
    from power_collector import service, simulator

    config = configuration.load(options.config)

    async def serve() -> None:
        async with service.stop_on_signals() as stop:
            room = asyncio.ensure_future(
                simulator.run(config, bind=options.bind, answers=options.log_answers, control=options.control)
            )
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({room, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (room, stopped):
                task.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            try:
                await room
            except asyncio.CancelledError:
                return

    try:
        asyncio.run(serve())
    except (OSError, simulator.ControlError) as error:
        print(f"the simulated room cannot be served: {error}", file=sys.stderr)
        return FAILED
    return OK


def _export(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)

    try:
        whole = export.write(config.store.path, options.format, sys.stdout, _complain)
        sys.stdout.flush()
    except export.ExportError as error:
        _complain(str(error))
        return FAILED
    except OSError as error:
        # The interpreter would try to write what is left once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return OK  # whoever reads has seen enough, like `head`
        _complain(f"standard output does not take it: {error}")
        return FAILED
    return OK if whole else FAILED


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _check(options: argparse.Namespace) -> int:
    config = configuration.load(options.file)
    print(f"{options.file}: {len(config.devices)} devices every {config.interval_s} s, no fault found")
    return OK

#!/usr/bin/env python3
"""Measures how many rows a PostgreSQL server takes from SQL alone, to hold `serverload` against.

    tools/bench/server_bound.py ADDRESS [--rows 64] [--studies 64] [--shared] [--seconds 8]

ADDRESS names an empty database that `serverload ADDRESS 1 1 1` has made the tables in. Two clients of
pgbench send groups of rows, with the statements of the writer that a group of known studies needs.
They are prepared, and sent at once. Nothing is computed beside the server: there are no senders, no
records and no waits between two groups. With `--shared`, both clients store into the same studies.
Standard library only.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

CLIENTS = 2
SETTINGS = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan -c jit=off"

# Rows as serverload makes them.
TABLES = """
INSERT INTO directory (place, path_key, path) VALUES (1, md5('d')::uuid, '/objects');
INSERT INTO study (id, uid_key, study_instance_uid) OVERRIDING SYSTEM VALUE
    SELECT 1000000 + n, md5('study' || n)::uuid, '1.2.' || n FROM generate_series(1, {studies}) n;
INSERT INTO shelf (id, study, shelf_key, series_key, directory, size_base, mtime_base, instance_count,
    offline_count, uid_prefix, declared, sop_class_uid, transfer_syntax_uid, said)
    OVERRIDING SYSTEM VALUE SELECT 1000000 + n, 1000000 + n, md5('shelf' || n)::uuid, md5('series' || n)::uuid,
    1, 0, 0, 0, 0, '1.2.3.', '', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', repeat('x', 330)
    FROM generate_series(1, {studies}) n;
INSERT INTO writer_slot SELECT 1000 + n, 0 FROM generate_series(0, {clients}) n ON CONFLICT DO NOTHING;
"""

GROUP = """
\\set above 1000000 + {client} * :studies
\\set below :above + :studies
\\set each :rows / :studies
\\set slot 1000 + :client_id
\\startpipeline
BEGIN;
SELECT pg_advisory_xact_lock_shared(1);
SELECT uid_key, id, revision FROM study WHERE id > :above AND id <= :below ORDER BY uid_key FOR NO KEY UPDATE;
SELECT shelf, flags, body FROM instance
    WHERE uid_key = ANY (ARRAY(SELECT gen_random_uuid() FROM generate_series(1, (:rows)::int)));
UPDATE shelf SET instance_count = instance_count + (:each)::bigint, change = c.number, changed_ms = c.now_ms,
    change_block = c.number - c.number % 4096 FROM change_number c WHERE id > :above AND id <= :below;
INSERT INTO instance SELECT (:above)::bigint + 1 + n % (:studies)::int, gen_random_uuid(), 0,
    decode(repeat('ab', 30), 'hex') FROM generate_series(1, (:rows)::int) n;
UPDATE study SET instance_count = instance_count + (:each)::bigint, revision = revision + 1
    WHERE id > :above AND id <= :below;
UPDATE writer_slot SET changes = changes + 1 WHERE slot = :slot;
COMMIT;
\\endpipeline
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--rows", type=int, default=64, help="rows of a group")
    parser.add_argument("--studies", type=int, default=64, help="studies of a group")
    parser.add_argument("--shared", action="store_true", help="both clients store into the same studies")
    parser.add_argument("--seconds", type=int, default=8)
    options = parser.parse_args()
    studies = options.studies * (1 if options.shared else CLIENTS)
    tables = TABLES.format(studies=studies, clients=CLIENTS)
    run("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", options.address, "-c", tables)
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "group.sql"
        script.write_text(GROUP.format(client="0" if options.shared else ":client_id"))
        told = run(
            "pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", str(CLIENTS), "-T", str(options.seconds),
            "-D", f"rows={options.rows}", "-D", f"studies={options.studies}", "-f", script, options.address,
        )  # fmt: skip
    groups = next(float(line.split()[2]) for line in told.splitlines() if line.startswith("tps ="))
    print(f"{groups:.0f} groups of {options.rows} rows a second: {groups * options.rows:.0f} rows/s")


def run(program, *arguments):
    programs = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    environment = {**os.environ, "PGOPTIONS": SETTINGS}
    told = subprocess.run([programs[-1], *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return told.stdout


if __name__ == "__main__":
    main()

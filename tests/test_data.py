"""Los datos de verdad: ficheros con todas las rarezas, un servidor que se porta mal y los partidos que vienen con el paquete."""

import codecs
import datetime as dt
import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

import pandas as pd
import pytest

from futbol_mlops import data
from futbol_mlops.config import Settings
from futbol_mlops.data import (
    DataError,
    canonical_team,
    data_version,
    download,
    load_matches,
    read_matches,
    team_id,
)

HEADER = "Div,Date,HomeTeam,AwayTeam,FTHG,FTAG,FTR"
SP1 = f"""{HEADER}
SP1,15/08/2024,Ath Bilbao,Getafe,1,1,D
SP1,15/08/2024,Betis,Girona,1,1,D
SP1,16/08/2024,Celta,Alaves,2,1,H
""".encode()
URL = "/mmz4281/2425/SP1.csv"


def season_file(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


# --- el lector -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("date", ["15/08/24", "15/08/2024", "2024-08-15", "2024-08-15 18:00"])
def test_dates(date):
    matches, rejected = read_matches(season_file(f"SP1,{date},Betis,Girona,1,1,D"))
    assert matches["date"][0] == pd.Timestamp("2024-08-15") and matches["season"][0] == "2024-25" and rejected.empty


def test_dates_of_the_nineties():
    matches, _ = read_matches(season_file("E0,14/08/93,Arsenal,Coventry,0,3,A"))
    assert matches["season"][0] == "1993-94"


def test_everything_odd_at_once():
    body = season_file(
        "SP1,21/08/15,Málaga,Sevilla,0,0,D,2.7,,de,más",
        "",
        "SP1,22/08/15,Deportivo,Real Sociedad,0,0,D",
        ",,,,,,,",
        ",",
        header=HEADER + ",BbAvH,,",
    )
    body = codecs.BOM_UTF8 + body.decode().replace("\n", "\r\n").encode("latin-1")
    matches, rejected = read_matches(body, "SP1", "2015-16")
    assert list(matches["home_team"]) == ["Malaga", "La Coruna"] and rejected.empty
    assert matches["odds_home"].tolist()[0] == 2.7 and pd.isna(matches["odds_home"][1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252"])
def test_accents_in_any_encoding(encoding):
    body = season_file("SP1,15/08/2024,Leganés,Alavés,1,0,H").decode().encode(encoding)
    assert read_matches(body)[0].loc[0, ["home_team", "away_team"]].tolist() == ["Leganes", "Alaves"]


def test_a_row_cut_short_is_set_apart():
    matches, rejected = read_matches(SP1 + b"SP1,17/08/2024,Osasuna,Leg")
    assert len(matches) == 3
    assert rejected.to_dict("records") == [
        {"file": "datos.csv", "line": 5, "column": "FTHG", "value": "", "expected": "un entero de 0 a 20"}
    ]
    assert data.rejection_texts(rejected) == ["datos.csv, línea 5: FTHG está vacío; se esperaba un entero de 0 a 20."]


def test_odds_have_had_two_names():
    odds = "1.9,3.4,4.1,2.0,3.6,4.3"
    new = season_file(f"SP1,15/08/2024,Betis,Girona,1,1,D,{odds}", header=f"{HEADER},AvgH,AvgD,AvgA,MaxH,MaxD,MaxA")
    old = season_file(f"SP1,15/08/2024,Betis,Girona,1,1,D,{odds}", header=f"{HEADER},BbAvH,BbAvD,BbAvA,BbMxH,BbMxD,BbMxA")
    pd.testing.assert_frame_equal(read_matches(new)[0], read_matches(old)[0])
    assert read_matches(new)[0].filter(like="odds").iloc[0].dropna().tolist() == [1.9, 3.4, 4.1, 2.0, 3.6, 4.3]


def test_missing_optional_columns_are_missing_values():
    matches, _ = read_matches(season_file("15/08/2024,Betis,Girona,1,1", header="Date,HomeTeam,AwayTeam,FTHG,FTAG"), league="SP1")
    assert list(matches.columns) == list(load_matches().columns)
    assert matches.dtypes.equals(load_matches().dtypes)
    assert matches.loc[0, ["league", "outcome", "source"]].tolist() == ["SP1", "draw", "football-data.co.uk"]
    assert matches.filter(regex="odds|half").isna().all(axis=None)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("Date", "31/02/2025", "una fecha, como"),
        ("Date", "15/08/2042", "una fecha de la temporada 2024-25"),
        ("HomeTeam", "", "el nombre de un equipo"),
        ("AwayTeam", "Real Betis", "un equipo distinto del local"),
        ("FTHG", "tres", "un entero de 0 a 20"),
        ("FTHG", "21", "un entero de 0 a 20"),
        ("FTAG", "-1", "un entero de 0 a 20"),
        ("FTAG", "1.5", "un entero de 0 a 20"),
        ("FTR", "H", "«D» con 1-1"),
        ("FTR", "", "«D» con 1-1"),
        ("FTR", "X", "H, D o A"),
        ("HTHG", "uno", "un entero de 0 a 20"),
        ("AvgH", "0", "una cuota decimal mayor que 1"),
        ("AvgH", "nan", "una cuota decimal mayor que 1"),
        ("AvgH", "#N/A", "una cuota decimal mayor que 1"),
        ("Div", "E0", "SP1"),
        ("Div", "ZZ9", "un código de liga"),
    ],
)
def test_an_unreadable_value_sets_its_row_apart_and_no_other(column, value, expected):
    good = {"Div": "SP1", "Date": "15/08/2024", "HomeTeam": "Betis", "AwayTeam": "Girona", "FTHG": "1", "FTAG": "1", "FTR": "D", "HTHG": "0", "AvgH": "2.1"}
    other = good | {"HomeTeam": "Celta", "AwayTeam": "Alaves"}
    body = season_file(",".join(other.values()), ",".join((good | {column: value}).values()), header=",".join(good))
    matches, rejected = read_matches(body, "SP1", "2024-25")
    assert list(matches["home_team"]) == ["Celta"]
    assert rejected.loc[0, ["line", "column"]].tolist() == [3, column]
    assert expected in rejected["expected"][0]
    canonical = "Betis" if value == "Real Betis" else value
    assert rejected["value"][0] == canonical


def test_goals_written_as_decimals_are_goals():
    assert read_matches(season_file("SP1,15/08/2024,Betis,Girona,2.0,1.0,H"))[0]["home_goals"][0] == 2


def test_each_match_can_tell_its_line():
    matches, _ = read_matches(SP1.replace(b"SP1,16/08/2024", b"\nSP1,14/08/2024"), with_lines=True)
    assert matches.set_index("home_team")["line"].to_dict() == {"Celta": 5, "Ath Bilbao": 2, "Betis": 3}
    assert "line" not in read_matches(SP1)[0]


def test_season_windows():
    assert data.season_window("2024-25") == (dt.date(2024, 7, 1), dt.date(2025, 6, 30))
    assert data.season_window("2019-20") == (dt.date(2019, 7, 1), dt.date(2020, 8, 31))
    late = season_file("I1,02/08/2020,Juventus,Roma,1,3,A", header=HEADER)
    assert read_matches(late, "I1", "2019-20")[0]["season"][0] == "2019-20"
    with pytest.raises(DataError, match="temporada 2018-19"):
        read_matches(late.replace(b"2020", b"2019"), "I1", "2018-19")


def test_quotes_are_understood_and_a_stray_one_costs_one_row():
    body = season_file('SP1,15/08/2024,"Betis","Girona",1,1,D,"Nombre, con coma",2.1', 'SP1,15/08/2024,"Celta,Alaves,2,1,H', header=HEADER + ",Referee,AvgH") + SP1.splitlines()[1]
    matches, rejected = read_matches(body)
    assert len(matches) == 2 and len(rejected) == 1
    assert matches.set_index("home_team").loc["Betis", "odds_home"] == 2.1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "llegaron: nada"),
        (b"\n\n,,,\n", "llegaron: nada"),
        (b"<!DOCTYPE html><html><body>Error</body></html>", "no es un CSV: llegó una página web"),
        (codecs.BOM_UTF8 + b"\n  <html>", "no es un CSV: llegó una página web"),
        (b'{"error": "no"}', "faltan las columnas Date, HomeTeam, AwayTeam, FTHG, FTAG"),
        (bytes(range(256)) * 10, "faltan las columnas"),
        (b"x" * 300_000, "faltan las columnas"),
        (b"Div,Date,HomeTeam,AwayTeam,FTHG\nSP1,15/08/2024,Betis,Girona,1\n", "faltan las columnas FTAG. Se esperaban Date, HomeTeam, AwayTeam, FTHG, FTAG; llegaron: Div, Date"),
        (HEADER.encode(), "no trae ningún partido que valga"),
        (season_file("SP1,ayer,Betis,Girona,1,1,D"), "línea 2: Date es «ayer»; se esperaba una fecha"),
        (SP1.replace(b"SP1,", b"SP2,"), "línea 2: Div es «SP2»; se esperaba SP1."),
    ],
)
def test_a_file_that_is_not_one_is_refused(body, message):
    with pytest.raises(DataError, match=re.escape(message)):
        read_matches(body, league="SP1")


def test_the_file_of_another_season_is_refused():
    with pytest.raises(DataError, match="se esperaba una fecha de la temporada 2025-26"):
        read_matches(SP1, "SP1", "2025-26")


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(DataError, match="No existe el fichero"):
        read_matches(tmp_path / "nada.csv")
    for name, content in (("SP1.csv.gz", gzip.compress(SP1)[:-12]), ("E0.csv.gz", SP1), ("folder", None)):
        path = tmp_path / name
        path.mkdir() if content is None else path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name} no se puede leer"):
            read_matches(path)


def test_reads_paths_plain_and_compressed(tmp_path):
    (tmp_path / "SP1.csv").write_bytes(SP1)
    (tmp_path / "SP1.csv.gz").write_bytes(gzip.compress(SP1))
    pd.testing.assert_frame_equal(read_matches(tmp_path / "SP1.csv")[0], read_matches(str(tmp_path / "SP1.csv.gz"))[0])


@pytest.mark.parametrize(
    ("league", "hint"),
    [("LaLiga", r"¿Quisiste decir SP1 \(LaLiga\)\?"), ("sp1", "¿Quisiste decir SP1"), ("premier league", "E0"), ("zzzzz", "Las que hay: E0"), ("../E0", "desconocida")],
)
def test_unknown_leagues(league, hint):
    with pytest.raises(DataError, match=hint):
        read_matches(SP1, league=league)


@pytest.mark.parametrize("season", ["2024", "2024-26", "24-25", "2024/25", "2024-2025", "1992-93", "../../etc", "２０２４-25", ""])
def test_invalid_seasons(season):
    with pytest.raises(DataError, match="dos años seguidos"):
        data.season_start(season)


def test_seasons():
    assert [data.season_start(s) for s in ("1993-94", "1999-00", "2025-26")] == [1993, 1999, 2025]
    assert [data.season_name(dt.date(2020, m, 1)) for m in (6, 7, 12)] == ["2019-20", "2020-21", "2020-21"]


# --- los nombres -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "league", "canonical"),
    [
        ("Manchester City", "E0", "Man City"),
        ("Manchester Utd", "E1", "Man United"),
        ("Nott’m Forest", "E0", "Nott'm Forest"),
        ("Wolverhampton Wanderers FC", "E0", "Wolves"),
        ("Brighton & Hove Albion", "E0", "Brighton"),
        ("Brighton and Hove Albion", "E0", "Brighton"),
        ("AFC Bournemouth", "E0", "Bournemouth"),
        ("Athletic Club", "SP1", "Ath Bilbao"),
        ("Club Atlético de Madrid", "SP1", "Ath Madrid"),
        ("R.C.D. Espanyol", "SP1", "Espanol"),
        ("Deportivo Alavés", "SP1", "Alaves"),
        ("RC Deportivo de La Coruña", "SP2", "La Coruna"),
        ("Real Sporting de Gijón", "SP2", "Sp Gijon"),
        ("CD Mirandés", "SP2", "CD Mirandes"),  # no está en la lista
        ("Sevilla\xa0FC", "SP1", "Sevilla"),
        ("  Real   Madrid ", "SP1", "Real Madrid"),
        ("Real Sociedad", "E0", "Real Sociedad"),  # no juega en Inglaterra
        ("FC Köln", "D1", "FC Koln"),
    ],
)
def test_canonical_names(name, league, canonical):
    assert canonical_team(name, league) == canonical


def test_names_of_the_shipped_matches_are_canonical_and_ids_unique():
    for league, matches in load_matches().groupby("league"):
        teams = set(matches["home_team"]) | set(matches["away_team"])
        assert {canonical_team(t, league) for t in teams} == teams
        assert set(map(str.lower, teams)) <= {canonical_team(t.upper(), league).lower() for t in teams}
        ids = {team_id(t) for t in teams}
        assert len(ids) == len(teams) and all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", i) for i in ids)


def test_every_canonical_name_maps_to_itself():
    for league, names in (("E0", data.TEAM_NAMES["E"]), ("SP1", data.TEAM_NAMES["SP"])):
        assert all(canonical_team(name, league) == name for name in names.values())


# --- los partidos del paquete ----------------------------------------------------------------------------------------


def test_shipped_matches():
    matches = load_matches()
    core = ["league", "season", "date", "home_team", "away_team", "home_goals", "away_goals", "outcome", "source", "corrected"]
    assert len(matches) == 7600 and not matches[core].isna().any(axis=None)
    assert matches.index.equals(pd.RangeIndex(7600))
    pd.testing.assert_frame_equal(matches, matches.sort_values(["date", "league", "home_team"], ignore_index=True))
    seasons = data.coverage(matches)
    assert seasons.groupby("league").size().to_dict() == {"E0": 14, "SP1": 6}
    assert (seasons["matches"] == 380).all() and (seasons["teams"] == 20).all()
    assert set(seasons.loc[seasons["with_odds"] > 0, "season"]) == {"2023-24"} and seasons["with_odds"].sum() == 760
    assert not matches.duplicated(["league", "season", "home_team", "away_team"]).any()
    margin = matches["home_goals"] - matches["away_goals"]
    assert (matches["outcome"] == margin.map(lambda m: "home_win" if m > 0 else "away_win" if m else "draw")).all()
    half = matches["home_goals_half"].notna()
    assert (matches.loc[half, "home_goals_half"] <= matches.loc[half, "home_goals"]).all()


def test_two_loads_do_not_share_memory():
    matches = load_matches()
    matches.loc[0, "home_goals"] = 99
    assert load_matches().loc[0, "home_goals"] != 99


def test_readme_lists_the_corrected_scores_and_the_version():
    readme = (resources.files("futbol_mlops") / "datasets" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\| (\d{4}-\d\d-\d\d) \| (\w+) \| (.+?) – (.+?) \| \d-\d \| (\d)-(\d) \|", readme))
    corrected = load_matches().query("corrected")
    columns = ["league", "home_team", "away_team", "home_goals", "away_goals"]
    assert listed == {(f"{m.date:%Y-%m-%d}", *(str(getattr(m, c)) for c in columns)) for m in corrected.itertuples()}
    assert len(listed) == 9 and data_version(load_matches()) in readme


def test_missing_table_says_who_writes_it(tmp_path):
    with pytest.raises(DataError, match="ingest"):
        load_matches(tmp_path / "matches.parquet")


# --- la versión ------------------------------------------------------------------------------------------------------


def test_version_ignores_order_and_storage(tmp_path):
    matches = load_matches().tail(900)
    version = data_version(matches)
    assert re.fullmatch("[0-9a-f]{12}", version)
    assert data_version(matches[::-1]) == version
    assert data_version(matches[sorted(matches.columns)]) == version
    assert data_version(matches.astype({"home_goals_half": "float64", "home_goals": "int8", "home_team": "object"})) == version
    data.save_matches(matches, tmp_path / "m.parquet")
    assert data_version(load_matches(tmp_path / "m.parquet")) == version


@pytest.mark.parametrize("column", [c.name for c in data.COLUMNS])
def test_version_sees_a_change_in_any_column(column):
    matches = load_matches().query("season == '2023-24'").reset_index(drop=True)
    changed = matches.copy()
    value = matches.loc[5, column]
    if pd.isna(value):  # disparos y cuotas de cierre, que no vienen con el paquete
        value = 0
    match column:
        case "corrected":
            changed.loc[5, column] = not value
        case "date":
            changed.loc[5, column] = value + pd.Timedelta(days=1)
        case _:
            changed.loc[5, column] = value + ("x" if isinstance(value, str) else 1)
    assert data_version(changed) != data_version(matches)


def test_version_needs_every_column():
    with pytest.raises(DataError, match="corrected"):
        data_version(load_matches().drop(columns="corrected"))


# --- escribir --------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "file"
    data.write_atomic(path, b"viejo")

    def full(*_):
        raise OSError("disco lleno")

    for broken in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError, match="disco lleno"):
                data.write_atomic(path, b"nuevo")
        assert path.read_bytes() == b"viejo" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_importing_is_light():
    code = "import sys, futbol_mlops.data; print(*{'pandas', 'numpy', 'httpx', 'pyarrow', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


# --- descargar -------------------------------------------------------------------------------------------------------


class Origin(ThreadingHTTPServer):
    "Un football-data.co.uk de juguete: sirve `files` y, mientras queden, se porta como diga `mishaps`."

    daemon_threads = True

    def __init__(self):
        self.files, self.mishaps, self.log, self.headers, self.etags = {URL: SP1}, [], [], [], True
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        origin = self.server
        mishap = origin.mishaps.pop(0) if origin.mishaps else None
        body = origin.files.get(self.path)
        etag, modified = f'"{hashlib.sha256(body or b"").hexdigest()[:8]}"', formatdate(1_700_000_000 + len(body or b""), usegmt=True)
        fresh = self.headers["If-None-Match"] == etag if origin.etags else self.headers["If-Modified-Since"] == modified
        status = mishap if isinstance(mishap, int) else 404 if body is None else 304 if fresh else 200
        origin.log.append(status)
        origin.headers.append(dict(self.headers))
        if mishap == "hang":
            time.sleep(0.6)
        self.send_response(status)
        if mishap == 301:
            self.send_header("Location", URL)
        if origin.etags:
            self.send_header("ETag", etag)
        self.send_header("Last-Modified", modified)
        content = body if status == 200 else b""
        if mishap != "cut without length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if "cut" in str(mishap) else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def origin(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Origin()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(origin, tmp_path):
    return Settings(home=tmp_path / "state", data_url=f"http://127.0.0.1:{origin.server_port}/")


def get(settings, league="SP1", season="2024-25", **kwargs):
    return download(league, season, settings, **{"wait": 0.001} | kwargs)


def files(settings):
    "Todo lo que hay en la carpeta del estado: ruta → contenido."
    return {str(p.relative_to(settings.home)): p.read_bytes() for p in settings.home.rglob("*") if p.is_file()}


def test_download(origin, settings):
    seen = []
    done = get(settings, progress=lambda received, total: seen.append((received, total)))
    assert done == (settings.downloads_path / "2024-25" / "SP1.csv", True, 3, 0, ())
    assert done.path.read_bytes() == SP1
    assert seen[-1] == (len(SP1), len(SP1)) and seen == sorted(seen)
    assert set(files(settings)) == {"downloads/2024-25/SP1.csv", "downloads/2024-25/SP1.json"}


@pytest.mark.parametrize("etags", [True, False])
def test_unchanged_file_is_not_sent_again(origin, settings, etags):
    origin.etags = etags
    get(settings)
    before = files(settings)
    again = get(settings)
    assert (again.changed, again.matches, origin.log) == (False, 3, [200, 304])
    assert files(settings) == before


def test_changed_file_replaces_the_copy(origin, settings):
    get(settings)
    origin.files[URL] += b"SP1,16/08/2024,Las Palmas,Sevilla,2,2,D\n"
    done = get(settings)
    assert (done.changed, done.matches, origin.log) == (True, 4, [200, 200])
    assert done.path.read_bytes() == origin.files[URL]


@pytest.mark.parametrize("touch", ["copy", "no copy", "note", "no note", "other note", "other address"])
def test_a_copy_that_is_not_intact_is_asked_for_whole(origin, settings, touch):
    path = get(settings).path
    note = path.with_suffix(".json")
    match touch:
        case "copy":
            path.write_bytes(SP1[:90])
        case "no copy":
            path.unlink()
        case "note":
            note.write_text("{cortada")
        case "no note":
            note.unlink()
        case "other note":
            note.write_text("[]")
        case "other address":
            note.write_text(json.dumps(json.loads(note.read_text()) | {"url": "http://otro"}))
    done = get(settings)
    assert done.changed and "If-None-Match" not in origin.headers[-1] and path.read_bytes() == SP1


@pytest.mark.parametrize("mishaps", [[500], [503, "cut"], ["cut", "cut", 500], ["cut without length"], [429], ["hang"]])
def test_passing_trouble_is_tried_again(origin, settings, mishaps):
    origin.mishaps = list(mishaps)
    assert get(settings, timeout=0.3).matches == 3
    assert len(origin.log) == len(mishaps) + 1


@pytest.mark.parametrize(
    ("mishap", "why"),
    [(500, "contestó 500"), ("cut", "se cortó a la mitad"), ("cut without length", "se cortó a la mitad"), ("hang", r"no contestó en 0\.1 s")],
)
def test_lasting_trouble_says_so_and_writes_nothing(origin, settings, mishap, why):
    origin.mishaps = [mishap] * 3
    with pytest.raises(DataError, match=f"tras 3 intentos: .*{why}.*FUTBOL_DATA_URL"):
        get(settings, attempts=3, timeout=0.1)
    assert len(origin.log) == 3 and files(settings) == {}


BAD_FILES = {
    "html": (b"<html><title>Mantenimiento</title></html>", "llegó una página web"),
    "columns": (b"Div,Date\nSP1,15/08/2024\n", "faltan las columnas"),
    "empty": (b"", "llegaron: nada"),
    "other league": (SP1.replace(b"SP1,", b"E0,"), "se esperaba SP1"),
    "other season": (SP1.replace(b"/2024", b"/2023"), "temporada 2024-25"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_success_with_rubbish_is_refused_and_the_good_copy_kept(origin, settings, kind):
    body, message = BAD_FILES[kind]
    good, origin.files[URL] = origin.files[URL], body
    with pytest.raises(DataError, match=message):
        get(settings)
    assert files(settings) == {}
    origin.files[URL] = good
    get(settings)
    before, origin.files[URL] = files(settings), body
    with pytest.raises(DataError, match=message):
        get(settings)
    assert files(settings) == before


def test_a_season_that_does_not_exist_is_asked_once(origin, settings):
    with pytest.raises(DataError, match=r"No hay datos de Premier League 2031-32 en http.*/mmz4281/3132/E0.csv \(404\)"):
        get(settings, "E0", "2031-32")
    assert origin.log == [404] and files(settings) == {}


@pytest.mark.parametrize("status", [403, 304, 204])
def test_unexpected_answers(origin, settings, status):
    origin.mishaps = [status]
    with pytest.raises(DataError, match=f"contestó {status}; se esperaba 200"):
        get(settings)
    assert len(origin.log) == 1 and files(settings) == {}


def test_redirects_are_followed(origin, settings):
    origin.mishaps = [301]
    assert get(settings).matches == 3 and origin.log == [301, 200]


def test_endless_answers_are_refused(origin, settings, monkeypatch):
    monkeypatch.setattr(data, "MAX_BYTES", 50)
    with pytest.raises(DataError, match="no puede ser una temporada"):
        get(settings)
    assert files(settings) == {}


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # reservado, pero nadie escucha
        settings = Settings(home=tmp_path, data_url=f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(DataError, match="tras 2 intentos: no hay conexión"):
            get(settings, attempts=2)
    assert files(settings) == {}


@pytest.mark.parametrize(("league", "season"), [("LaLiga", "2024-25"), ("SP1", "2024-26"), ("../x", "2024-25"), ("SP1", "../..")])
def test_wrong_use_asks_for_nothing(origin, settings, league, season):
    with pytest.raises(DataError):
        get(settings, league, season)
    assert origin.log == [] and files(settings) == {}


def test_rejected_rows_are_told_and_kept_until_mended(origin, settings):
    good, origin.files[URL] = SP1, SP1.replace(b"Celta,Alaves,2,1", b"Celta,Alaves,dos,1")
    done = get(settings)
    apart = settings.home / "quarantine" / "SP1_2024-25.csv"
    assert (done.matches, done.rejected) == (2, 1)
    assert done.messages[0] == "SP1.csv, línea 4: FTHG es «dos»; se esperaba un entero de 0 a 20."
    assert str(apart) in done.messages[1]
    assert pd.read_csv(apart).to_dict("records") == [
        {"file": "SP1.csv", "line": 4, "column": "FTHG", "value": "dos", "expected": "un entero de 0 a 20"}
    ]
    assert get(settings).messages == done.messages  # sin cambios, pero el aviso sigue
    origin.files[URL] = good
    assert get(settings).rejected == 0 and not apart.exists()

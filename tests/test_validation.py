"""El contrato de los datos: veinte maneras de romperlo y más, ficheros que no lo son, la cuarentena y la orden que lo comprueba."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from futbol_mlops import validation
from futbol_mlops.config import Settings
from futbol_mlops.data import (
    COLUMNS,
    LEAGUES,
    DataError,
    canonical_team,
    data_version,
    load_matches,
    merge_matches,
    read_matches,
    save_matches,
    write_atomic,
)
from futbol_mlops.validation import (
    COUNTS,
    MATCHES,
    check_file,
    failures,
    ingest,
    meetings,
    read_valid,
    reasons,
    review,
    suspects,
    table_contract,
    validate_matches,
    validation_report,
)

CLI = Path(sys.executable).parent / "futbol-mlops"
HEADER = "Div,Date,HomeTeam,AwayTeam,FTHG,FTAG,FTR"
ROWS = ("SP1,15/08/2024,Ath Bilbao,Getafe,1,1,D", "SP1,15/08/2024,Betis,Girona,1,1,D", "SP1,16/08/2024,Celta,Alaves,2,1,H")
SHIPPED = load_matches()
SEASON = SHIPPED.query("league == 'E0' and season == '2023-24'").reset_index(drop=True)  # con cuotas y goles al descanso
ROW = SHIPPED.index[(SHIPPED["league"] == "E0") & (SHIPPED["season"] == "2023-24")][100]


def season_file(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def holds_together(before: pd.DataFrame, checked, bad: set[int]) -> None:
    "Se aparta justo lo que se dice, lo demás pasa tal cual y nada se pierde ni cambia de orden."
    assert set(checked.rejected.index) == bad
    pd.testing.assert_frame_equal(checked.good, before.drop(index=list(bad)))
    pd.testing.assert_frame_equal(pd.concat([checked.good, checked.rejected[before.columns]]).sort_index(), before)
    assert not checked.rejected[["column", "expected"]].isna().any(axis=None)


# --- las maneras de estropear una fila -------------------------------------------------------------------------------


def put(column, value, matches, row):
    "Escribe un valor; si es una función, el que dé a partir de la fila."
    matches.loc[row, column] = value(matches.loc[row]) if callable(value) else value


ONE_ROW = {  # qué se hace → (cómo, lo que dice el motivo)
    "cuarenta y cinco goles": (partial(put, "home_goals", 45), "un entero de 0 a 20"),
    "goles negativos": (partial(put, "away_goals", -1), "un entero de 0 a 20"),
    "gana quien pierde": (partial(put, "outcome", lambda m: "home_win" if m.home_goals <= m.away_goals else "away_win"), "el resultado que dicen los goles"),
    "resultado en la clave de otro": (partial(put, "outcome", "H"), "uno de home_win, draw, away_win"),
    "más goles del local al descanso": (partial(put, "home_goals_half", lambda m: m.home_goals + 1), "al descanso"),
    "más goles del visitante al descanso": (partial(put, "away_goals_half", lambda m: m.away_goals + 3), "al descanso"),
    "goles negativos al descanso": (partial(put, "home_goals_half", -2), "un entero de 0 a 20"),
    "un equipo contra sí mismo": (partial(put, "away_team", lambda m: m.home_team), "un equipo distinto del local"),
    "sin local": (partial(put, "home_team", None), "el nombre de un equipo"),
    "un visitante en blanco": (partial(put, "away_team", " "), "el nombre de un equipo"),
    "un alias": (partial(put, "home_team", "Manchester City"), "el nombre canónico"),
    "una liga que no existe": (partial(put, "league", "LaLiga"), "un código de liga"),
    "una temporada a medias": (partial(put, "season", "2023"), "una temporada, como"),
    "la temporada de al lado": (partial(put, "season", "2021-22"), "una fecha de esa temporada"),
    "un partido del futuro": (partial(put, "date", pd.Timestamp("2042-08-15")), "una fecha de esa temporada"),
    "sin fecha": (partial(put, "date", pd.NaT), "una fecha, como"),
    "con hora": (partial(put, "date", lambda m: m.date + pd.Timedelta(hours=20)), "un día, sin hora"),
    "una cuota menor que uno": (partial(put, "odds_draw", 0.25), "una cuota decimal mayor que 1"),
    "cuota americana": (partial(put, "odds_home", -150.0), "una cuota decimal mayor que 1"),
    "cuota infinita": (partial(put, "odds_max_away", float("inf")), "una cuota decimal mayor que 1"),
    "una coma perdida": (partial(put, "odds_home", lambda m: m.odds_home * 100), "sumen entre 1 y 1,25"),
    "cuotas de otro partido": (partial(put, ["odds_home", "odds_draw", "odds_away"], [1.1, 1.2, 1.3]), "sumen entre 1 y 1,25"),
    "cuotas máximas de otro partido": (partial(put, ["odds_max_home", "odds_max_draw", "odds_max_away"], [1.5, 1.5, 1.5]), "sumen entre 0,75 y 1,25"),
    "sin origen": (partial(put, "source", None), "el origen del dato"),
}


@pytest.mark.parametrize("kind", ONE_ROW)
def test_a_row_spoilt_in_the_shipped_matches_is_caught_alone(kind):
    spoil, word = ONE_ROW[kind]
    matches = SHIPPED.copy()
    spoil(matches, ROW)
    checked = validate_matches(matches)
    holds_together(matches, checked, {ROW})
    assert word in reasons(checked.rejected)[0]


def fixture(home, away, **changes):
    "Una fila nueva de la Premier 2023-24, sin cuotas ni descanso."
    row = SHIPPED.loc[[ROW]].assign(home_team=home, away_team=away, home_goals=1, away_goals=1, outcome="draw", home_goals_half=pd.NA, away_goals_half=pd.NA, **changes)
    blank = {c: float("nan") for c in row if c.startswith("odds")}
    return row.assign(**blank).astype(SHIPPED.dtypes.to_dict())


def add(matches, *rows):
    return pd.concat([matches, *rows], ignore_index=True)


def opponents(date):
    return SEASON[SEASON["date"] == date].iloc[:2]


FIRST, SECOND = (m for _, m in opponents("2023-08-12").iterrows())
TABLE_WIDE = {  # qué se hace → (tabla estropeada, filas malas, lo que dice el motivo)
    "la misma fila dos veces": (add(SHIPPED, SHIPPED.loc[[ROW]]), {7600}, "un partido que no estuviera ya en la tabla"),
    "el mismo partido, de otra fuente": (add(SHIPPED, SHIPPED.loc[[ROW]].assign(source="otra")), {7600}, "un partido que no estuviera ya en la tabla"),
    "un fichero entero repetido": (add(SHIPPED, SEASON), set(range(7600, 7980)), "un partido que no estuviera ya en la tabla"),
    "un partido inventado": (add(SHIPPED, fixture(FIRST.home_team, SECOND.home_team, date=FIRST.date)), {7600}, "un partido por equipo y día"),
    "dos inventados el mismo día": (
        add(SHIPPED, fixture(FIRST.home_team, SECOND.home_team, date=FIRST.date), fixture(FIRST.away_team, SECOND.away_team, date=FIRST.date)),
        {7600, 7601}, "un partido por equipo y día"),
    "la vuelta apuntada como otra ida": (add(SHIPPED, fixture(FIRST.away_team, FIRST.home_team, date=FIRST.date)), {7600}, "una visita por temporada"),
}


@pytest.mark.parametrize("kind", TABLE_WIDE)
def test_rows_that_cannot_stand_together_are_caught_alone(kind):
    matches, bad, word = TABLE_WIDE[kind]
    checked = validate_matches(matches)
    holds_together(matches, checked, bad)
    assert all(word in text for text in reasons(checked.rejected))


def test_the_table_of_corruptions_has_twenty_and_more():
    assert len(ONE_ROW) + len(TABLE_WIDE) >= 20


def test_a_match_moved_to_a_day_its_teams_already_play():
    "Choca con dos; cada uno de los dos, solo con él."
    season = SEASON.copy()
    day = season[season["date"] == "2023-12-26"]
    teams = [day.iloc[0].home_team, day.iloc[1].away_team]
    moved = season.index[(season["home_team"] == teams[0]) & (season["away_team"] == teams[1]) & (season["date"] != "2023-12-26")][0]
    season.loc[moved, "date"] = pd.Timestamp("2023-12-26")
    holds_together(season, validate_matches(season), {moved})


def test_between_two_equal_suspects_both_wait_and_each_names_the_other():
    again = SEASON.loc[[7]].assign(home_goals=9, away_goals=8, outcome="home_win")
    matches = add(SEASON, again)
    checked = validate_matches(matches)
    holds_together(matches, checked, {7, 380})
    m = SEASON.loc[7]
    assert all(f"choca con {m.home_team} – {m.away_team}" in text for text in reasons(checked.rejected))


def test_a_convicted_row_takes_no_good_one_with_it():
    again = SEASON.loc[[7]].assign(home_goals=45)
    matches = add(SEASON, again)
    holds_together(matches, validate_matches(matches), {380})


def test_every_reason_of_a_row_is_told_and_counts_once():
    matches = SEASON.copy()
    matches.loc[3, ["home_goals", "odds_home"]] = [45, -150]
    checked = validate_matches(matches)
    (text,) = reasons(checked.rejected)
    assert "home_goals es «45»" in text and "odds_home es «-150» y se esperaba una cuota decimal" in text and text.count("además") >= 2


def test_the_blamed_columns_are_the_ones_to_look_at():
    matches = SEASON.copy()
    matches.loc[3, "away_goals_half"] = 9
    matches.loc[4, "away_team"] = "Manchester Utd"
    matches.loc[5, ["odds_max_home", "odds_max_draw", "odds_max_away"]] = 1.1
    assert validate_matches(matches).rejected["column"].tolist() == ["away_goals_half, away_goals", "away_team", "odds_max_home, odds_max_draw, odds_max_away"]


# --- lo bueno pasa ---------------------------------------------------------------------------------------------------


def test_the_shipped_matches_pass_whole():
    checked = validate_matches(SHIPPED)
    assert checked.rejected.empty and checked.rejected.columns.tolist() == [*SHIPPED.columns, "column", "value", "expected"]
    pd.testing.assert_frame_equal(checked.good, SHIPPED)


def test_any_index_is_kept():
    matches = SEASON.set_index(pd.Index([f"m{i % 300}" for i in range(380)]))
    matches.iloc[17, matches.columns.get_loc("home_goals")] = 45
    checked = validate_matches(matches)
    assert checked.rejected.index.tolist() == ["m17"] and checked.good.index.tolist() == [name for i, name in enumerate(matches.index) if i != 17]


@pytest.mark.parametrize("league", ["SC0", "SC3", "B1", "G1", "EC", "N1"])
def test_leagues_with_more_rounds_may_repeat_a_visit(league):
    rows = [f"{league},{date},Rangers,Celtic,0,1,A" for date in ("03/09/2023", "07/04/2024")]
    good, rejected = read_valid(season_file(*rows), league)
    assert len(good) == 2 and rejected.empty


@pytest.mark.parametrize("league", ["E0", "SP1", "D1"])
def test_leagues_of_two_rounds_may_not(league):
    rows = [f"{league},{date},Uno,Dos,0,1,A" for date in ("03/09/2023", "07/04/2024")]
    others = [f"{league},{day:02}/10/2023,Tres,Equipo {day},0,0,D" for day in range(1, 6)]
    good, rejected = read_valid(season_file(*rows, *others), league)
    assert len(good) == 5 and rejected["line"].tolist() == [2, 3] and "una visita por temporada" in rejected["expected"][0]


def test_two_leagues_may_have_a_team_of_the_same_name_on_one_day():
    matches = pd.concat([SHIPPED, SEASON.assign(league="E1", source="otra")], ignore_index=True)
    assert validate_matches(matches).rejected.empty


def test_odds_that_real_files_bring():
    header = f"{HEADER},AvgH,AvgD,AvgA,MaxH,MaxD,MaxA"
    rows = [
        "SC3,15/08/2015,Uno,Dos,1,1,D,1.95,3.10,3.10,2.10,3.40,3.60",  # margen de liga pequeña
        "SC3,15/08/2015,Tres,Cuatro,1,1,D,2.40,3.30,2.90,2.70,3.75,3.30",  # las máximas suman menos de uno
        "SC3,15/08/2015,Cinco,Seis,1,1,D,2.40,,,2.70,3.75,",  # incompletas
        "SC3,15/08/2015,Siete,Ocho,1,1,D,,,,,,",
    ]
    good, rejected = read_valid(season_file(*rows, header=header))
    assert len(good) == 4 and rejected.empty


def test_a_rout_is_accepted_and_noted():
    odd = review(SHIPPED)
    assert SHIPPED.loc[odd.index, ["home_goals", "away_goals"]].max(axis=1).min() == 8 and len(odd) < 20
    assert "hasta siete goles" in reasons(odd)[0]


# --- columnas que van y vienen ---------------------------------------------------------------------------------------


def with_counts(matches, **values):
    "La tabla con tiros, córneres y tarjetas, y lo que se diga en la fila 5."
    names = [f"{side}_{what}" for side in ("home", "away") for what in COUNTS]
    table = matches.assign(**{name: pd.array([3, pd.NA] * (len(matches) // 2), dtype="Int64") for name in names})
    for name, value in values.items():
        table.loc[5, name] = value
    return table


def test_shots_and_cards_are_optional_and_may_be_missing():
    table = with_counts(SEASON)
    assert validate_matches(table).rejected.empty
    assert validate_matches(table.drop(columns=["home_shots", "away_reds"])).rejected.empty


@pytest.mark.parametrize("what", COUNTS)
@pytest.mark.parametrize("value", ["negative", "too many"])
def test_shots_and_cards_out_of_range(what, value):
    number = -1 if value == "negative" else COUNTS[what] + 1
    table = with_counts(SEASON, **{f"away_{what}": number})
    checked = validate_matches(table)
    holds_together(table, checked, {5})
    assert reasons(checked.rejected)[0].endswith(f"away_{what} es «{number}»; se esperaba un entero de 0 a {COUNTS[what]}.")


def test_more_shots_on_target_than_shots_is_only_noted():
    table = with_counts(SEASON, home_shots_on_target=9, home_shots=4)
    assert validate_matches(table).rejected.empty
    assert review(table).loc[5, "column"] == "home_shots_on_target, home_shots"


def test_an_average_above_the_maximum_is_only_noted():
    matches = SEASON.copy()
    matches.loc[5, "odds_max_draw"] = matches.loc[5, "odds_draw"] - 0.02
    assert validate_matches(matches).rejected.empty and 5 in review(matches).index


def test_closing_odds_are_checked_when_the_table_has_them():
    closing = [f"odds_close_{side}" for side in ("home", "draw", "away")]
    table = SEASON.assign(**{name: SEASON[name.replace("close_", "")] for name in closing})
    assert failures(MATCHES, table).empty
    table.loc[8, closing] = [1.1, 1.1, 1.1]
    table.loc[9, closing[0]] = -110
    assert failures(MATCHES, table).drop_duplicates("row")["row"].tolist() == [8, 9]
    without = table_contract([c.name for c in COLUMNS if c.name not in closing])
    assert failures(without, table)["row"].tolist() == [9]  # la suma, solo si el contrato conoce las tres; el rango, siempre


# --- inventadas por Hypothesis ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 379), st.sampled_from(sorted(ONE_ROW)), max_size=60))
def test_whatever_rows_are_spoilt_those_and_no_others_are_set_apart(spoilt):
    matches = SEASON.copy()
    for row, kind in spoilt.items():
        ONE_ROW[kind][0](matches, row)
    checked = validate_matches(matches)
    holds_together(matches, checked, set(spoilt))
    for row, text in zip(checked.rejected.index, reasons(checked.rejected), strict=True):
        assert ONE_ROW[spoilt[row]][1] in text


TEAMS = ["Arsenal", "Chelsea", "Everton", "Fulham"]
CROWD = st.lists(st.tuples(st.sampled_from(TEAMS), st.sampled_from(TEAMS), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=14)


@settings(max_examples=30, deadline=None)
@given(CROWD)
def test_what_passes_never_clashes_and_passes_again(rows):
    matches = pd.concat([fixture(home, away, date=pd.Timestamp(2023, 9, day)) for home, away, day, _ in rows], ignore_index=True)
    matches["home_goals"] = [goals for *_, goals in rows]
    matches["outcome"] = matches["home_goals"].map({0: "away_win", 1: "draw", 2: "home_win"})
    checked = validate_matches(matches)
    holds_together(matches, checked, set(checked.rejected.index))
    assert meetings(checked.good).empty
    assert checked.good.empty or validate_matches(checked.good).rejected.empty
    clean = validate_matches(matches[matches["home_team"] != matches["away_team"]]) if (matches["home_team"] != matches["away_team"]).any() else None
    assert clean is None or set(clean.good.index) == set(checked.good.index)  # quien juega contra sí mismo no mueve a los demás


def test_suspects_do_not_depend_on_the_order():
    matches = TABLE_WIDE["dos inventados el mismo día"][0]
    shuffled = matches.sample(frac=1, random_state=3)
    assert set(shuffled.index[suspects(shuffled)]) == {7600, 7601}


# --- la tabla entera -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda m: m.drop(columns="away_goals"), "falta la columna away_goals"),
    (lambda m: m.drop(columns=["league", "date"]), "falta la columna league; falta la columna date"),
    (lambda m: m.astype({"home_goals": "str"}), "home_goals es de tipo str y se esperaba int64"),
    (lambda m: m.astype({"date": "str"}), "date es de tipo str y se esperaba datetime64"),
    (lambda m: m.astype({"odds_draw": "str"}), "odds_draw es de tipo str y se esperaba float64"),
    (lambda m: m.assign(home_shots=3.5), "home_shots es de tipo float64 y se esperaba Int64"),
    (lambda m: m.rename(columns={"home_team": "local"}), "falta la columna home_team"),
    (lambda m: m.head(0), "no tiene ningún partido"),
])
def test_a_table_of_another_shape_is_refused_whole(spoil, message):
    with pytest.raises(DataError, match=message):
        validate_matches(spoil(SEASON.copy()))


def test_a_fault_in_a_rule_is_not_taken_for_bad_data():
    broken = validation.pa.DataFrameSchema(checks=[validation.rule(["home_goals"], lambda m: m["nada"] > 0, "algo")])
    with pytest.raises(validation.pa.errors.SchemaErrors):
        failures(broken, SEASON)


def many_rows(count: int = 230_000) -> pd.DataFrame:
    "Los partidos del paquete en las veintidós ligas, y otra vez catorce años antes."
    ordinary = SHIPPED[SHIPPED["season"] != "2019-20"]
    years = ordinary["season"].str[:4].astype(int) - 14
    older = ordinary.assign(season=[f"{y}-{(y + 1) % 100:02d}" for y in years], date=(ordinary["date"] - pd.DateOffset(years=14)).astype("datetime64[us]"))
    big = pd.concat([table.assign(league=code) for code in LEAGUES for table in (SHIPPED, older)], ignore_index=True).head(count)
    for side in ("home_team", "away_team"):
        big[side] = [canonical_team(name, league) for name, league in zip(big[side], big["league"], strict=True)]
    return big


def test_a_quarter_of_a_million_rows_take_seconds():
    big = many_rows()
    begin = time.perf_counter()
    checked = validate_matches(big)
    assert time.perf_counter() - begin < 15 and checked.rejected.empty and len(big) == 230_000
    bad = big.index[::100]
    big.loc[bad, "home_goals"] = 45
    begin = time.perf_counter()
    checked = validate_matches(big)
    assert time.perf_counter() - begin < 20 and checked.rejected.index.equals(bad)


# --- ficheros --------------------------------------------------------------------------------------------------------


BROKEN_FILES = {
    "vacío": (b"", "llegaron: nada"),
    "solo cabecera": (season_file(), "solo la cabecera"),
    "una página web": (b"<!DOCTYPE html><title>Mantenimiento</title>", "llegó una página web"),
    "un JSON": (b'{"error": "no"}', "faltan las columnas"),
    "binario": (bytes(range(256)) * 40, "faltan las columnas"),
    "sin una columna": (season_file("SP1,15/08/2024,Betis,Girona,1", header="Div,Date,HomeTeam,AwayTeam,FTHG"), "faltan las columnas FTAG"),
    "una columna dos veces": (season_file(*(f"{r},3" for r in ROWS), header=f"{HEADER},FTHG"), "trae dos veces la columna FTHG"),
    "cortado en una fila": (season_file(*ROWS)[:-12], "está cortado: la línea 4"),
    "cortado en la primera": (season_file(ROWS[0])[:-12], "está cortado: la línea 2"),
    "goles en letra": (season_file(*(r.replace(",1,", ",uno,") for r in ROWS)), "no valen 3 de 3 filas, sobre todo por FTHG"),
    "cuotas americanas": (season_file(*(f"{r},-150,+260,+480" for r in ROWS), header=f"{HEADER},AvgH,AvgD,AvgA"), "AvgH es «-150»"),
    "cuotas americanas positivas": (season_file(*(f"{r},150,260,480" for r in ROWS), header=f"{HEADER},AvgH,AvgD,AvgA"), "odds_home, odds_draw, odds_away"),
    "fechas al revés": (season_file(*(r.replace("15/08", "08/15").replace("16/08", "08/16") for r in ROWS)), "sobre todo por Date"),
    "otra liga": (season_file(*ROWS).replace(b"SP1,", b"E0,"), "Div es «E0»; se esperaba SP1"),
    "otra temporada": (season_file(*ROWS).replace(b"/2024", b"/2021"), "una fecha de la temporada 2024-25"),
}


@pytest.mark.parametrize("kind", BROKEN_FILES)
def test_a_broken_file_is_refused_whole(kind):
    body, message = BROKEN_FILES[kind]
    with pytest.raises(DataError, match=re.escape(message)):
        read_valid(body, "SP1", "2024-25")


def test_half_of_the_rows_bad_is_still_a_file():
    body = season_file(*ROWS, "SP1,17/08/2024,Osasuna,Leganes,uno,1,D", "SP1,17/08/2024,Valencia,Barcelona,dos,1,A", "SP1,18/08/2024,Valladolid,Espanol,99,0,H")
    good, rejected = read_valid(body, "SP1")
    assert (len(good), rejected["line"].tolist()) == (3, [5, 6, 7])
    with pytest.raises(DataError, match="no valen 4 de 7"):
        read_valid(body + b"SP1,18/08/2024,Sevilla,Sevilla,0,0,D\n", "SP1")


def test_a_file_without_a_last_newline_is_not_cut():
    good, rejected = read_valid(season_file(*ROWS).rstrip(b"\n"), "SP1")
    assert len(good) == 3 and rejected.empty


def test_what_cannot_be_read_and_what_cannot_be_true_are_told_by_line():
    header = f"{HEADER},HTHG,HTAG,AvgH,AvgD,AvgA"
    rows = [f"{r},0,0,2.5,3.3,2.9" for r in ROWS]
    body = season_file(rows[0], "SP1,16/08/2024,Osasuna,Leganes,uno,1,D,0,0,2.5,3.3,2.9", "", rows[1].replace("0,0,2.5", "4,0,2.5"), rows[2], f"{ROWS[2]},0,0,2.5,3.3,2.9",
                       "SP1,17/08/2024,Valencia,Barcelona,1,2,A,1,1,25,3.3,2.9", "SP1,18/08/2024,Villarreal,Ath Madrid,2,2,D,2,2,2.5,3.3,2.9", "SP1,18/08/2024,Sevilla,Mallorca,0,0,D", header=header)
    good, rejected = read_valid(body, "SP1", "2024-25")
    assert good["home_team"].tolist() == ["Ath Bilbao", "Celta", "Sevilla", "Villarreal"] and good.index.tolist() == [0, 1, 2, 3]
    assert list(good.columns) == [c.name for c in COLUMNS]
    assert rejected["line"].tolist() == [3, 5, 7, 8] and set(rejected["file"]) == {"SP1.csv"}
    texts = reasons(rejected)
    assert texts[0] == "SP1.csv, línea 3: FTHG es «uno»; se esperaba un entero de 0 a 20."
    assert texts[1].startswith("SP1.csv, línea 5: home_goals_half, home_goals es «4, 1»; se esperaba al descanso")
    assert "ya en la tabla" in texts[2] and "odds_home, odds_draw, odds_away es «25, 3.3, 2.9»" in texts[3]


@pytest.mark.parametrize("body", [season_file(*ROWS), season_file(*ROWS).replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + season_file(*ROWS), season_file(*ROWS, ",,,,,,,,")])
def test_good_files_pass_as_they_are_read(body):
    good, rejected = read_valid(body, "SP1")
    pd.testing.assert_frame_equal(good, read_matches(body, "SP1")[0])
    assert rejected.empty


def test_the_shipped_file_passes_the_raw_contract():
    path = Path(validation.__file__).parent / "datasets" / "matches.csv.gz"
    good, rejected = read_valid(path)
    pd.testing.assert_frame_equal(good, SHIPPED)
    assert rejected.empty


# --- el informe ------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *(name for name, _ in attrs)}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_escapes_what_it_tells_and_loads_nothing(tmp_path):
    matches = SEASON.copy()
    matches.loc[5, ["home_team", "source"]] = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"]
    matches.loc[5, "home_goals"] = 45
    matches.loc[6, "league"] = "\"><iframe src='//x'>"
    (tmp_path / "<b>.csv").write_bytes(b"<script>alert(2)</script>")
    page = validation_report([validate_matches(matches, "<i>tabla</i>"), check_file(tmp_path / "<b>.csv")])
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and not tags.seen & {"script", "img", "iframe", "b", "i", "src", "href", "onerror"}
    assert "&lt;script&gt;" in page and "Rechazado entero" in page and "380 filas: 378 cumplen, 2 apartadas" in page


def test_a_long_report_is_cut_and_says_so():
    matches = SEASON.copy()
    matches["home_goals"] = 45
    page = validation_report([validate_matches(matches)], limit=50)
    assert "… y 330 más" in page and page.count("home_goals es «45»") < 60


def test_nothing_to_report_reads_well():
    assert "380 filas: 380 cumplen, 0 apartadas" in validation_report([validate_matches(SEASON)])


# --- de los ficheros a la tabla --------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path):
    return Settings(home=tmp_path / "state")


def put_file(state, body, league="SP1", season="2024-25"):
    path = state.downloads_path / season / f"{league}.csv"
    write_atomic(path, body)
    return path


def files(state):
    "Todo lo que hay en la carpeta del estado: ruta → contenido."
    return {str(p.relative_to(state.home)): p.read_bytes() for p in state.home.rglob("*") if p.is_file()}


def test_ingest_without_downloads_is_the_shipped_table(state):
    done = ingest(state)
    pd.testing.assert_frame_equal(done.matches, SHIPPED)
    pd.testing.assert_frame_equal(load_matches(state.matches_path), SHIPPED)
    assert set(files(state)) == {"data/matches.parquet"} and (done.rejected, done.messages) == (0, ())


def test_ingest_adds_what_was_downloaded(state):
    put_file(state, season_file(*ROWS))
    matches = ingest(state).matches
    assert len(matches) == 7603 and matches.query("source == 'football-data.co.uk'")["home_team"].tolist() == ["Ath Bilbao", "Betis", "Celta"]
    assert data_version(load_matches(state.matches_path)) == data_version(matches) == data_version(ingest(state).matches)


def test_what_is_downloaded_wins(state):
    put_file(state, season_file("SP1,12/08/2023,Almeria,Rayo Vallecano,7,2,H"), season="2023-24")  # en el paquete: el 11, 0-2
    matches = ingest(state).matches
    fixture = matches.query("season == '2023-24' and home_team == 'Almeria' and away_team == 'Vallecano'")
    assert len(matches) == 7600 and fixture[["home_goals", "source"]].values.tolist() == [[7, "football-data.co.uk"]]


def test_leagues_that_meet_four_times_keep_all_their_matches(state):
    put_file(state, season_file("SC0,03/09/2023,Rangers,Celtic,0,1,A", "SC0,07/04/2024,Rangers,Celtic,3,3,D"), "SC0", "2023-24")
    assert len(ingest(state).matches.query("league == 'SC0'")) == 2


def test_bad_rows_wait_in_quarantine_until_mended(state):
    good = season_file(*ROWS)
    put_file(state, good.replace(b"Celta,Alaves,2,1", b"Celta,Celta,2,1"))
    done = ingest(state)
    apart = state.home / "quarantine" / "SP1_2024-25.csv"
    assert (len(done.matches), done.rejected) == (7602, 1) and "línea 4" in done.messages[0] and str(apart) in done.messages[1]
    assert pd.read_csv(apart)["line"].tolist() == [4]
    put_file(state, good)
    assert ingest(state).rejected == 0 and not apart.exists()


def test_the_quarantine_keeps_the_whole_match_with_its_reason(state):
    put_file(state, season_file(*(f"{r},0,0" for r in ROWS[:2]), f"{ROWS[2]},3,0", header=f"{HEADER},HTHG,HTAG"))
    ingest(state)
    (row,) = pd.read_csv(state.home / "quarantine" / "SP1_2024-25.csv").to_dict("records")
    assert (row["line"], row["home_team"], row["home_goals"], row["home_goals_half"]) == (4, "Celta", 2, 3)
    assert row["column"] == "home_goals_half, home_goals" and row["value"] == "3, 2" and "al descanso" in row["expected"]


def test_two_files_that_disagree_cost_the_clashing_rows_and_no_more(state):
    put_file(state, season_file("SP1,11/08/2023,Sevilla,Mallorca,0,0,D"), season="2023-24")  # en el paquete, el 11: Sevilla – Valencia
    done = ingest(state)
    apart = pd.read_csv(state.home / "quarantine" / "matches.csv")
    assert set(apart["home_team"] + "-" + apart["away_team"]) == {"Sevilla-Mallorca", "Sevilla-Valencia"}
    assert len(done.matches) == 7598 and done.rejected == 2 and "choca con Sevilla – Mallorca (SP1, 11/08/2023)" in " ".join(done.messages)
    assert len(merge_matches(SHIPPED, [read_matches(state.downloads_path / "2023-24" / "SP1.csv")[0]])) == len(done.matches) + done.rejected
    put_file(state, season_file("SP1,09/08/2023,Sevilla,Mallorca,0,0,D"), season="2023-24")
    assert ingest(state).rejected == 0 and not (state.home / "quarantine" / "matches.csv").exists()


@pytest.mark.parametrize("kind", ["una página web", "cortado en una fila", "cuotas americanas", "otra temporada"])
def test_a_refused_file_leaves_table_and_quarantine_as_they_were(state, kind):
    put_file(state, season_file(*ROWS[:2], ROWS[2].replace("Alaves", "Celta")))
    put_file(state, season_file("E0,15/08/2026,Arsenal,Chelsea,1,1,D"), "E0", "2026-27")
    ingest(state)
    put_file(state, season_file("E0,15/08/2026,Arsenal,Chelsea,1,1,D", "E0,16/08/2026,Everton,Fulham,9,9,H", "E0,17/08/2026,Leeds,Hull,0,0,D"), "E0", "2026-27")
    put_file(state, BROKEN_FILES[kind][0])
    before = files(state)
    with pytest.raises(DataError, match="bórralo o descárgalo otra vez"):
        ingest(state)
    assert files(state) == before


def test_a_download_named_after_no_league_is_refused(state):
    put_file(state, season_file(*ROWS), "liga")
    with pytest.raises(DataError, match="Liga desconocida: «liga»"):
        ingest(state)


def test_ingested_matches_feed_the_features(state):
    from futbol_mlops.features import build_features

    put_file(state, season_file(*ROWS))
    matches = ingest(state).matches
    features, _ = build_features(matches)
    assert features.index.equals(matches.index)


# --- la orden --------------------------------------------------------------------------------------------------------


def run(*arguments, home, **env):
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "FUTBOL_HOME": str(home), "NO_PROXY": "127.0.0.1"} | env
    return subprocess.run([CLI, "data", *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)


def test_validate_without_files_checks_the_current_table(tmp_path, state):
    done = run("validate", "--json", home=state.home)
    assert done.returncode == 0, done.stderr
    row = {"file": "partidos del paquete", "rows": 7600, "good": 7600, "rejected": 0, "refused": False, "problems": []}
    assert json.loads(done.stdout) == [row] and not state.home.exists()
    save_matches(SHIPPED.assign(home_goals=SHIPPED["home_goals"].mask(SHIPPED.index == ROW, 45)), state.matches_path)
    done = run("validate", "--json", home=state.home)
    (row,) = json.loads(done.stdout)
    assert (done.returncode, row["file"], row["good"], row["rejected"]) == (1, "matches.parquet", 7599, 1) and "home_goals es «45»" in row["problems"][0]


def test_validate_tells_each_file_and_writes_nothing(tmp_path):
    good, bad, cut = (tmp_path / name for name in ("good.csv", "bad.csv.gz", "cut.csv"))
    good.write_bytes(season_file(*ROWS))
    bad.write_bytes(gzip.compress(season_file(*ROWS[:2], ROWS[2].replace("2,1,H", "2,[red]uno,H"))))
    cut.write_bytes(season_file(*ROWS)[:-12])
    assert run("validate", good, "--league", "SP1", "--season", "2024-25", home=tmp_path / "state").returncode == 0
    done = run("validate", good, bad, cut, home=tmp_path / "state")
    assert done.returncode == 1 and "bad.csv.gz, línea 4: FTAG es «[red]uno»" in done.stderr and "cut.csv está cortado" in done.stderr
    rows = json.loads(run("validate", good, bad, cut, "--json", home=tmp_path / "state").stdout)
    assert [(r["rows"], r["good"], r["rejected"], r["refused"]) for r in rows] == [(3, 3, 0, False), (3, 2, 1, False), (0, 0, 0, True)]
    assert not (tmp_path / "state").exists()


def test_validate_leaves_a_report(tmp_path):
    bad, page = tmp_path / "bad.csv", tmp_path / "reports" / "hoy.html"
    bad.write_bytes(season_file(*ROWS[:2], ROWS[2].replace("Celta", "<b>Celta")))
    assert run("validate", bad, "--html", page, home=tmp_path).returncode == 0  # un nombre raro no es imposible
    bad.write_bytes(season_file(*ROWS[:2], ROWS[2].replace("2,1,H", "2,<b>,H")))
    assert run("validate", bad, "--html", page, home=tmp_path).returncode == 1
    assert "&lt;b&gt;" in page.read_text(encoding="utf-8") and "<b>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "message"), [
    (["nada.csv"], "No existe el fichero nada.csv"),
    (["--league", "SP1"], "falta decir cuál"),
    ([__file__, "--league", "LaLiga"], "Liga desconocida"),
    ([__file__, "--season", "2024"], "dos años seguidos"),
])
def test_validate_used_wrongly_exits_2(arguments, message, tmp_path):
    done = run("validate", *arguments, home=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def origin(tmp_path):
    "Sirve una carpeta como football-data.co.uk: dirección y carpeta de la temporada 2024-25."
    folder = tmp_path / "www" / "mmz4281" / "2425"
    folder.mkdir(parents=True)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_download_lets_the_good_in_and_refuses_what_is_broken(origin, state):
    url, folder = origin
    (folder / "SP1.csv").write_bytes(season_file(*ROWS[:2], ROWS[2].replace("Alaves", "Celta de Vigo")))
    ask = partial(run, "download", "--league", "SP1", "--season", "2024-25", home=state.home, FUTBOL_DATA_URL=url)
    done = ask()
    assert done.returncode == 0, done.stderr
    assert "2 partidos, 1 filas apartadas" in done.stdout and "En total, 7602" in done.stdout and done.stderr.count("línea 4") == 1
    before = files(state)
    for kind in ("cuotas americanas", "una página web"):
        (folder / "SP1.csv").write_bytes(BROKEN_FILES[kind][0] + b" " * len(kind))
        os.utime(folder / "SP1.csv", (2_000_000_000, 2_000_000_000))
        done = ask()
        assert done.returncode == 1 and BROKEN_FILES[kind][1] in done.stderr, done.stderr
        assert files(state) == before


def test_help_does_not_import_pandera():
    code = "import sys\nfrom futbol_mlops.cli import main\nmain(['data', 'validate', '--help'])\nprint([m for m in ('pandas', 'pandera') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"TERM": "dumb"})
    assert shown.stdout.strip().splitlines()[-1] == "[]"

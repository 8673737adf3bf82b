"""El contrato publicado de la API, y qué puede cambiar en él sin romper a quien ya llama.

    python tests/published.py              compara el de hoy con el publicado; acaba en 1 si algo no cuadra
    python tests/published.py --publish    publica el de hoy, si solo añade
    python tests/published.py --publish --break-callers    lo publica aunque rompa: antes, lee «Cuándo cambia el contrato» en nbs/11_serving

Se puede añadir: una ruta, un código, un campo en la respuesta, un campo o un parámetro opcional en la petición, un valor en una lista
cerrada. No se puede quitar, renombrar, cambiar de tipo, estrechar ni exigir: eso es `/v2`.
"""
import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PUBLISHED = Path(__file__).with_name("openapi_v1.json")
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
WORDS = ("description", "summary", "title", "example", "examples", "tags", "info")  # lo que se puede redactar mejor cuando se quiera
AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT = ("pattern", "format", "multipleOf", "uniqueItems")


# --- El de hoy --------------------------------------------------------------------------------------------------------

def small_state(home: Path) -> str:
    "Una carpeta de estado con un modelo pequeño y una clave que lo puede todo; devuelve la clave."
    from futbol_mlops.bundle import write_bundle
    from futbol_mlops.config import Settings
    from futbol_mlops.data import load_matches
    from futbol_mlops.features import build_features
    from futbol_mlops.models import make_logit, model_numbers, outcome_codes
    from futbol_mlops.security import create_key
    from futbol_mlops.serving import SCOPES

    matches, settings = load_matches(), Settings(home=home)
    X, history = build_features(matches)
    write_bundle(settings.bundle_path, model_numbers(make_logit().fit(X, outcome_codes(matches))), history,
                 {"version": "1.2.3", "data": {"matches": len(matches)}, "metrics": {"rps": 0.2}})
    return create_key(settings.keys_path, "contrato", SCOPES, "1000000/second")[1]


def current(home: Path) -> dict:
    "El OpenAPI de la aplicación entera."
    from futbol_mlops.app import create_app
    from futbol_mlops.config import Settings

    return json.loads(json.dumps(create_app(Settings(home=home)).openapi()))


def published() -> dict:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def structure(node, named: bool = False):
    "Sin lo que solo es redacción. `named`: las claves son nombres de campos, y uno puede llamarse `title`."
    if isinstance(node, dict):
        return {k: structure(v, k in ("properties", "schemas", "paths", "responses", "headers")) for k, v in node.items() if named or k not in WORDS}
    return [structure(v) for v in node] if isinstance(node, list) else node


# --- Qué rompe --------------------------------------------------------------------------------------------------------

def breaks(old: dict, new: dict) -> list[str]:
    "Lo que en `new` rompería a quien se fía de `old`, una frase por cosa."
    found = []
    for path, operations in old["paths"].items():
        if path not in new["paths"]:
            found.append(f"{path}: la ruta ha desaparecido")
            continue
        for method in filter(operations.get, METHODS):
            where = f"{method.upper()} {path}"
            if method not in new["paths"][path]:
                found.append(f"{where}: el método ha desaparecido")
            else:
                found += _Comparison(old, new, where).operation(operations[method], new["paths"][path][method])
    return list(dict.fromkeys(found))


class _Comparison:
    "Una operación de antes con la de ahora."

    def __init__(self, old: dict, new: dict, where: str) -> None:
        self.old, self.new, self.where, self.seen = old, new, where, set()

    def say(self, place: str, what: str) -> str:
        return f"{self.where} · {place}: {what}"

    def operation(self, old: dict, new: dict) -> Iterator[str]:
        for fact, name in (("operationId", "nombre"), ("x-scope", "permiso")):
            if old.get(fact) != new.get(fact):
                yield self.say(name, f"era «{old.get(fact)}» y ahora es «{new.get(fact)}»")
        if set(_schemes(new)) - set(_schemes(old)):
            yield self.say("seguridad", f"ahora pide {sorted(set(_schemes(new)) - set(_schemes(old)))}")
        yield from self.parameters(old.get("parameters", []), new.get("parameters", []))
        yield from self.body(old.get("requestBody"), new.get("requestBody"))
        for code, response in old["responses"].items():
            if code not in new["responses"]:
                yield self.say("respuestas", f"el código {code} ha desaparecido")
            else:
                yield from self.response(code, response, new["responses"][code])

    def parameters(self, old: list, new: list) -> Iterator[str]:
        before, after = ({(p["in"], p["name"]): p for p in map(lambda p, s=side: _resolve(p, s), found)} for found, side in ((old, self.old), (new, self.new)))
        for key, parameter in before.items():
            place = f"parámetro {key[1]} ({key[0]})"
            if key not in after:
                yield self.say(place, "ha desaparecido")
                continue
            if after[key].get("required") and not parameter.get("required"):
                yield self.say(place, "ahora es obligatorio")
            yield from self.schema(place, parameter.get("schema", {}), after[key].get("schema", {}), True)
        for key, parameter in after.items():
            if key not in before and parameter.get("required"):
                yield self.say(f"parámetro {key[1]} ({key[0]})", "es nuevo y obligatorio")

    def body(self, old: dict | None, new: dict | None) -> Iterator[str]:
        if old is None:
            if new and new.get("required"):
                yield self.say("petición", "ahora exige un cuerpo")
            return
        if new is None:
            yield self.say("petición", "ya no admite cuerpo")
            return
        if new.get("required") and not old.get("required"):
            yield self.say("petición", "ahora exige un cuerpo")
        yield from self.content("petición", old["content"], new["content"], True)

    def response(self, code: str, old: dict, new: dict) -> Iterator[str]:
        for name, header in old.get("headers", {}).items():
            if name not in new.get("headers", {}):
                yield self.say(f"respuesta {code}", f"la cabecera {name} ha desaparecido")
            else:
                yield from self.schema(f"respuesta {code}, cabecera {name}", header.get("schema", {}), new["headers"][name].get("schema", {}), False)
        yield from self.content(f"respuesta {code}", old.get("content", {}), new.get("content", {}), False)

    def content(self, place: str, old: dict, new: dict, asked: bool) -> Iterator[str]:
        for kind, media in old.items():
            if kind not in new:
                yield self.say(place, f"el tipo {kind} ha desaparecido")
            else:
                yield from self.schema(place, media.get("schema", {}), new[kind].get("schema", {}), asked)

    def schema(self, place: str, old: dict, new: dict, asked: bool) -> Iterator[str]:
        "`asked`: va en la petición, y lo de antes debe seguir valiendo; si no, va en la respuesta, y lo de ahora debe caber en lo de antes."
        if "$ref" in old:  # cada clase, una vez: así acaban también las que se contienen
            mark = (old["$ref"], json.dumps(new, sort_keys=True), asked)
            if mark in self.seen:
                return
            self.seen.add(mark)
        before, after = _alternatives(old, self.old), _alternatives(new, self.new)
        gone, fresh = set(before) - set(after), set(after) - set(before)
        if "any" in after and asked:
            gone = set()
        if "any" in before and not asked:
            fresh = set()
        if gone or fresh and not asked:
            yield self.say(place, f"era {_listed(before)} y ahora es {_listed(after)}")
        for kind in set(before) & set(after):
            yield from self.kind(place, before[kind], after[kind], asked)

    def kind(self, place: str, old: dict, new: dict, asked: bool) -> Iterator[str]:
        yield from self.values(place, _closed(old), _closed(new), asked)
        narrower, wider = (new, old) if asked else (old, new)  # en la petición no se puede estrechar; en la respuesta, ensanchar
        verb = "ahora se exige" if asked else "ya no se promete"
        for limit, sign in [*((k, 1) for k in AT_LEAST), *((k, -1) for k in AT_MOST)]:
            if limit in narrower and (limit not in wider or sign * narrower[limit] > sign * wider[limit]):
                yield self.say(place, f"{verb} {limit} {narrower[limit]} (antes {old.get(limit, 'nada')}, ahora {new.get(limit, 'nada')})")
        for fact in EXACT:
            if fact in narrower and narrower[fact] != wider.get(fact):
                yield self.say(place, f"{verb} {fact} «{narrower[fact]}» (antes {old.get(fact, 'nada')}, ahora {new.get(fact, 'nada')})")
        yield from self.fields(place, old, new, asked)
        for inner in ("items", "additionalProperties"):
            if isinstance(old.get(inner), dict) and isinstance(new.get(inner), dict):
                yield from self.schema(f"{place}[]", old[inner], new[inner], asked)
        if asked and old.get("additionalProperties", True) is not False and new.get("additionalProperties", True) is False:
            yield self.say(place, "ya no admite campos que no conoce")
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(before) != len(after):
            yield self.say(place, f"tenía {len(before)} elementos y ahora tiene {len(after)}")
        for i, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from self.schema(f"{place}[{i}]", one, other, asked)

    def values(self, place: str, old: list | None, new: list | None, asked: bool) -> Iterator[str]:
        if old is None:
            if asked and new is not None:
                yield self.say(place, f"ahora solo admite {new}")
        elif new is None:
            if not asked:
                yield self.say(place, f"era uno de {old} y ahora puede ser cualquiera")
        elif [v for v in old if v not in new]:
            yield self.say(place, f"ya no está el valor {[v for v in old if v not in new]}")

    def fields(self, place: str, old: dict, new: dict, asked: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, field in before.items():
            if name not in after:
                yield self.say(f"{place}.{name}", "el campo ha desaparecido")
            else:
                yield from self.schema(f"{place}.{name}", field, after[name], asked)
        demanded, promised = set(new.get("required", [])), set(old.get("required", []))
        for name in sorted(demanded - promised) if asked else ():
            yield self.say(f"{place}.{name}", "ahora es obligatorio" if name in before else "es nuevo y obligatorio")
        for name in sorted((promised - demanded) & set(after)) if not asked else ():
            yield self.say(f"{place}.{name}", "ya no viene siempre")


def _schemes(operation: dict) -> Iterator[str]:
    return (name for need in operation.get("security", []) for name in need)


def _resolve(node: dict, document: dict) -> dict:
    while "$ref" in node:
        target = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _alternatives(node: dict, document: dict) -> dict[str, dict]:
    "Un esquema por cada tipo de JSON que admite; `any` si lo admite todo."
    node = _resolve(node, document)
    options = node.get("anyOf") or node.get("oneOf")
    if options:
        rest = {k: v for k, v in node.items() if k not in ("anyOf", "oneOf")}
        return {kind: {**rest, **one} for option in options for kind, one in _alternatives(option, document).items()}
    if len(node.get("allOf", [])) == 1:
        return _alternatives({**{k: v for k, v in node.items() if k != "allOf"}, **_resolve(node["allOf"][0], document)}, document)
    kinds = node.get("type", "any")
    return {kind: node for kind in (kinds if isinstance(kinds, list) else [kinds])}


def _closed(node: dict) -> list | None:
    return [node["const"]] if "const" in node else node.get("enum")


def _listed(kinds: dict) -> str:
    return " o ".join(sorted(kinds)) or "nada"


# --- Lo que se dice ---------------------------------------------------------------------------------------------------

def verdict(old: dict, new: dict) -> str | None:
    "Por qué el contrato de hoy no se puede dar por publicado, y qué hacer; `None` si es el publicado."
    broken = breaks(old, new)
    if broken:
        return "\n".join(["El contrato de hoy rompe a quien llama con el publicado (tests/openapi_v1.json):", *(f"  - {b}" for b in broken),
                          "Deshaz el cambio o llévalo a /v2. Si de verdad hay que publicarlo así: python tests/published.py --publish --break-callers"])
    if structure(old) != structure(new):
        return "El contrato de hoy añade cosas al publicado, y no rompe nada. Para que queden protegidas: python tests/published.py --publish"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Compara el OpenAPI de hoy con el publicado.")
    parser.add_argument("--publish", action="store_true", help="guarda el de hoy como publicado, si no rompe nada")
    parser.add_argument("--break-callers", action="store_true", help="con --publish: guárdalo aunque rompa")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small_state(Path(folder))
        today = current(Path(folder))
    broken = breaks(published(), today) if PUBLISHED.exists() else []
    if args.publish and (args.break_callers or not broken):
        PUBLISHED.write_text(json.dumps(today, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"Publicado en {PUBLISHED.name}: {len(today['paths'])} rutas.")
        return 0
    if not PUBLISHED.exists():
        print("No hay contrato publicado: python tests/published.py --publish", file=sys.stderr)
        return 1
    problem = verdict(published(), today)
    print(problem or "El contrato de hoy es el publicado.", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())

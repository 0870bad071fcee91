// Renders Go templates: one JSON line {templates, values} in, one JSON line of rendered texts out.
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const { parse } = await import(pathToFileURL(process.argv[2]));
const { templates, values } = JSON.parse(readFileSync(0, "utf8"));
const out = [];
for (const one of templates) out.push(await parse(one, values));
process.stdout.write(JSON.stringify(out));
process.exit(0);

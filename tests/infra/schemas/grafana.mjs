// Makes grafana-<version>.json: JSON Schemas of the types that Grafana publishes of its own dashboards, panels and queries.
//
//   npm install --no-save @grafana/schema@13.2.3 ts-json-schema-generator@2.4.0 typescript@5.9 tslib
//   node grafana.mjs
import fs from "node:fs";
import { createGenerator } from "ts-json-schema-generator";

const PACKAGE = "node_modules/@grafana/schema";
const PARTS = {
  dashboard: ["dashboard/x", "Dashboard"],
  "stat.options": ["composable/stat/panelcfg/x", "Options"],
  "table.options": ["composable/table/panelcfg/x", "Options"],
  "table.custom": ["composable/table/panelcfg/x", "FieldConfig"],
  "timeseries.options": ["composable/timeseries/panelcfg/x", "Options"],
  "timeseries.custom": ["composable/timeseries/panelcfg/x", "FieldConfig"],
  "cloudwatch.query": ["composable/cloudwatch/dataquery/x", "CloudWatchMetricsQuery"],
};

const { version, license } = JSON.parse(fs.readFileSync(`${PACKAGE}/package.json`));
const schemas = {};
for (const [name, [folder, type]] of Object.entries(PARTS)) {
  const path = `${PACKAGE}/dist/types/raw/${folder}/types.gen.d.ts`;
  schemas[name] = createGenerator({ path, type, skipTypeCheck: true, jsDoc: "none", expose: "none", topRef: false })
    .createSchema(type);
}
const source = `npm @grafana/schema ${version} (${license}), by grafana.mjs`;
fs.writeFileSync(`grafana-${version}.json`, JSON.stringify({ source, version, schemas }) + "\n");

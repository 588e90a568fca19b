// What both tests need of a browser: one without JavaScript, as our pages must work
// without, and what it complained of.

import process from "node:process";
import { pathToFileURL } from "node:url";

const { chromium } = await import(pathToFileURL(process.env.PLAYWRIGHT).href);

/// A browser that finds these hosts here, a page of it, and its complaints so far.
export async function open(...hosts) {
  const rules = hosts.map((host) => `MAP ${host} 127.0.0.1`).join(", ");
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", `--host-resolver-rules=${rules}`],
  });
  const context = await browser.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const wrongs = [];
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) wrongs.push(message.text());
  });
  return { browser, context, page, wrongs };
}

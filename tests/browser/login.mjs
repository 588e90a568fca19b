// A protected link from another site, a wrong and a right password, a second link,
// logout, Back: what a person sees. Run by tests/suite/browser.rs.

import assert from "node:assert/strict";
import http from "node:http";
import process from "node:process";

import { open } from "./browser.mjs";

const origin = `https://gateway.test:${process.env.GATEWAY_PORT}`;
const target = `${origin}/app/page`;

// Another site, that links to ours.
const site = http.createServer((_, response) => {
  response.setHeader("content-type", "text/html");
  response.end(`<!doctype html><title>Elsewhere</title><a id=link href="${target}">over there</a>`);
});
await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
const elsewhere = `http://elsewhere.test:${site.address().port}/`;

const { browser, context, page, wrongs } = await open("gateway.test", "elsewhere.test");

try {
  await page.goto(elsewhere);
  await page.click("#link");
  await page.waitForSelector("input[name=password]");
  assert.ok(new URL(page.url()).pathname.startsWith("/auth/"), page.url());

  // Labels that a screen reader finds, and nothing to scroll sideways on a phone.
  const name = page.getByLabel(/name/i);
  const password = page.getByLabel(/password/i);
  assert.equal(await name.getAttribute("name"), "username");
  assert.equal(await password.getAttribute("type"), "password");
  await page.setViewportSize({ width: 320, height: 640 });
  const form = await page.locator("form").boundingBox();
  assert.ok(form.x >= 0 && form.x + form.width <= 320, JSON.stringify(form));

  await name.fill(process.env.LOGIN_NAME);
  await password.fill("wrong");
  await page.keyboard.press("Enter");
  const alert = page.getByRole("alert");
  await alert.waitFor();
  assert.match(await alert.innerText(), /not right/);
  assert.equal(await page.getByLabel(/password/i).inputValue(), "", "the password is not kept");

  await page.getByLabel(/name/i).fill(process.env.LOGIN_NAME);
  await page.getByLabel(/password/i).fill(process.env.LOGIN_PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#sample");
  assert.equal(page.url(), target, "the login lands where the link led");

  // A second link from another site needs no login, though the cookies are Strict.
  await page.goto(elsewhere);
  await page.click("#link");
  await page.waitForSelector("#sample");
  assert.equal(page.url(), target);

  // Logout, then Back: nothing of the page is left.
  await page.goto(`${origin}/auth/logout`);
  await page.waitForSelector("input[name=password]");
  const cookies = await context.cookies(origin);
  assert.deepEqual(cookies.filter((cookie) => /bindgate-(token|context)/.test(cookie.name)), []);
  await page.goBack();
  await page.waitForLoadState();
  assert.equal(await page.locator("#sample").count(), 0, `Back shows the page: ${page.url()}`);
  await page.goto(target);
  await page.waitForSelector("input[name=password]");
  assert.deepEqual(wrongs, []);
} finally {
  await browser.close();
  site.close();
}

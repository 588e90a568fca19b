// A password that must be changed: what a person sees, from the link to the page that it
// leads to. Run by tests/suite/browser.rs.

import assert from "node:assert/strict";
import process from "node:process";

import { open } from "./browser.mjs";

const target = `https://gateway.test:${process.env.GATEWAY_PORT}/app/page`;
const fresh = "a wholly new secret";

const { browser, page, wrongs } = await open("gateway.test");

try {
  await page.goto(target);
  await page.getByLabel("User name").fill(process.env.LOGIN_NAME);
  await page.getByLabel("Password").fill(process.env.LOGIN_PASSWORD);
  await page.keyboard.press("Enter");
  const alert = page.getByRole("alert");
  assert.match(await alert.innerText(), /must be changed/);
  const asks = async () => {
    assert.equal(await page.getByLabel("User name").inputValue(), process.env.LOGIN_NAME);
    const hidden = await page.locator("input[type=hidden]").evaluateAll((all) => all.map((it) => it.name));
    assert.deepEqual(hidden, ["rd"], "no secret");
  };
  await asks();
  await page.setViewportSize({ width: 320, height: 800 });
  const form = await page.locator("form").boundingBox();
  assert.ok(form.x >= 0 && form.x + form.width <= 320, JSON.stringify(form));
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });

  const change = async (old, one, other) => {
    await page.getByLabel("Old password").fill(old);
    await page.getByLabel("New password", { exact: true }).fill(one);
    await page.getByLabel("New password again").fill(other);
    await page.keyboard.press("Enter");
  };
  await change(process.env.LOGIN_PASSWORD, fresh, `${fresh} `);
  await page.getByText("typed differently").waitFor();
  await asks();
  await change(process.env.LOGIN_PASSWORD, "passwordpassword", "passwordpassword");
  await page.getByText("others try first").waitFor();
  await asks();
  assert.equal(await page.getByLabel("Old password").inputValue(), "", "nothing is kept");
  await change("not the old one", fresh, fresh);
  await page.getByText("not right").waitFor();
  await asks();
  await change(process.env.LOGIN_PASSWORD, fresh, fresh);
  await page.waitForSelector("#sample");
  assert.equal(page.url(), target, "the change lands where the link led");
  assert.deepEqual(wrongs, []);
} finally {
  await browser.close();
}

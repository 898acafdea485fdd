// The server's page in a real browser: search, click, a list appears and changes.
//
//   node tests/page.mjs URL FOLDER [CHROMIUM]
//
// Needs the package playwright-core (NODE_PATH or a node_modules above this file). Screenshots go to FOLDER.
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const { chromium } = createRequire(process.env.PLAYWRIGHT ? process.env.PLAYWRIGHT + "/" : import.meta.url)("playwright-core");
const [url, folder, executablePath = "/usr/bin/chromium"] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

for (const [name, width, height, colorScheme] of [["phone", 375, 812, "dark"], ["desktop", 1280, 900, "light"]]) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  const problems = [];
  page.on("pageerror", error => problems.push(String(error)));
  page.on("console", message => message.type() === "error" && problems.push(message.text()));
  page.on("request", request => request.url().startsWith(url) || problems.push("asks " + request.url()));
  await page.goto(url);
  // Who has chosen nothing gets what is popular.
  await page.waitForSelector("#list li");
  assert.match(await page.textContent("#model"), /popularity/);
  const popular = await page.textContent("#list");

  // Part of a title finds it, in whatever case it is typed.
  const wanted = (await page.locator("#list button").last().textContent()).replace(/^\d+\. /, "");
  await page.fill("#search", wanted.slice(1).toUpperCase());
  const found = page.locator("#found button", { hasText: wanted }).first();
  await found.click();
  await page.waitForFunction(popular => document.getElementById("list").textContent !== popular, popular);
  assert.equal(await page.locator("#history li").count(), 1);
  // With the keyboard alone.
  await page.locator("#list button").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 2);
  await page.waitForFunction(() => document.querySelectorAll("#metrics tr").length > 1);

  // Everything that can be pressed has a name, is large enough for a thumb, and nothing is wider than the screen.
  for (const button of await page.locator("button").all()) {
    assert.ok(await button.getAttribute("aria-label"));
    assert.ok((await button.boundingBox()).height >= 44);
  }
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

  await page.locator("#history button").first().click();
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 1);
  assert.deepEqual(problems, []);
  await page.close();
}
await browser.close();
console.log("the page recommends on a phone and a desktop");

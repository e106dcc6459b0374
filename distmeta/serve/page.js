"use strict";
const find = (id) => document.getElementById(id);
let token = "", task = null;

function addClass(label, texts) {
  const part = find("class").content.cloneNode(true);
  part.querySelector(".label").value = label;
  part.querySelector(".texts").value = texts.join("\n");
  find("classes").append(part);
}

function examples() {
  const found = [];
  for (const field of document.querySelectorAll("#classes fieldset")) {
    const label = field.querySelector(".label").value.trim();
    for (const line of field.querySelector(".texts").value.split("\n")) {
      if (line.trim()) found.push({ text: line.trim(), label });
    }
  }
  return found;
}

async function call(method, path, body) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers["Authorization"] = "Bearer " + token;
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (answer.status === 401) find("access").hidden = false;
  if (answer.status === 204) return null;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error.where + ": " + content.error.found + "; " + content.error.remedy);
  return content;
}

async function doing(form, work) {
  const buttons = form.querySelectorAll("button");
  find("error").textContent = "";
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } catch (error) {
    find("error").textContent = error.message;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function percent(share) {
  return (100 * share).toFixed(1) + " %";
}

function showTask() {
  find("asking").hidden = !task;
  find("answer").replaceChildren();
  if (!task) return;
  let said = "Learned " + task.classes.length + " classes from " + task.examples + " examples. ";
  if (task.cut) said += task.cut + " of them are longer than it reads, and were cut. ";
  if (task.expected) {
    said += "Expected to be right on " + percent(task.expected.accuracy) + " of new texts (95 % interval ";
    said += percent(task.expected.low) + " to " + percent(task.expected.high) + "), by leaving out examples.";
  } else {
    said += "With a second example of a class it could say how good it expects to be.";
  }
  find("task").textContent = said;
  const access = token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  find("shell").textContent = "curl" + access + " -H 'Content-Type: application/json' " + location.origin + "/tasks/" +
    task.id + "/predict -d '{\"inputs\": [\"a text\"]}'";
}

function showAnswer(found) {
  const said = document.createElement("p"), table = document.createElement("table");
  said.className = "said";
  const labels = Array.isArray(found.label) ? found.label.join(", ") || "None of the classes; the nearest are:" : found.label;
  said.textContent = labels === null ? "Not sure enough to say; the nearest are:" : labels;
  const sorted = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 10);
  for (const [label, share] of sorted) {
    const row = table.insertRow(), name = document.createElement("th"), bar = document.createElement("meter");
    name.textContent = label;
    name.scope = "row";
    bar.value = share;
    bar.textContent = percent(share);
    row.append(name);
    row.insertCell().append(bar);
    const number = row.insertCell();
    number.className = "number";
    number.textContent = percent(share);
  }
  find("answer").replaceChildren(said, table);
}

find("more").addEventListener("click", () => {
  addClass("", []);
  [...document.querySelectorAll(".label")].at(-1).focus();
});
find("learn").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(find("learn"), async () => {
    task = await call("POST", "/tasks", { examples: examples() });
    showTask();
    find("text").focus();
  });
});
find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(find("ask"), async () => {
    const found = await call("POST", "/tasks/" + task.id + "/predict", { inputs: [find("text").value] });
    showAnswer(found.predictions[0]);
  });
});
find("forget").addEventListener("click", () => doing(find("asking"), async () => {
  await call("DELETE", "/tasks/" + task.id);
  task = null;
  showTask();
}));
find("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value;
  find("token").value = "";
  find("access").hidden = true;
  find("error").textContent = "";
});
addClass("refund", ["I want my money back", "please return what I paid"]);
addClass("delivery", ["where is my parcel", "it has not arrived yet"]);

"use strict";
// Lines of JSON in and out: {"encode": [address, values]} gives {"hex"}, {"decode": hex} gives {"message"} or {"refused"}.
const readline = require("readline");
const { encode, decode } = require(process.argv[2]);

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  if (order.encode) return console.log(JSON.stringify({ hex: encode(...order.encode).toString("hex") }));
  try {
    const { address, values } = decode(Buffer.from(order.decode, "hex"));
    console.log(JSON.stringify({ message: [address, ...values] }));
  } catch (error) {
    console.log(JSON.stringify({ refused: error.message }));
  }
});

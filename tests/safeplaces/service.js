// A service as the Safe Places backend of one era guards it, that counts what it receives.
//
//   node service.js v1|v2|translation|ldap|ingest
//
// Listens at once, so that its port is known before anything is configured, and says
// `{"port", "report"}`. Then reads one line, the environment as JSON, loads the era with
// it, and says `{"ready": true}`. The port of `report` answers with all that was received,
// as JSON: it is no part of the service, nobody reaches it through a gateway.

const http = require('http');
const readline = require('readline');

const seen = [];
const service = http.createServer();

// Before the era's own code, so that nothing it does can lose a request.
service.on('request', (req, res) => {
  const record = {
    method: req.method,
    url: req.url,
    headers: req.rawHeaders,
    handled: null,
    status: null,
  };
  req.record = record;
  seen.push(record);
  res.on('finish', () => (record.status = res.statusCode));
});

const report = http.createServer((req, res) => {
  res.setHeader('content-type', 'application/json');
  res.end(JSON.stringify(seen));
});

function say(value) {
  process.stdout.write(JSON.stringify(value) + '\n');
}

service.listen(0, '127.0.0.1', () => {
  report.listen(0, '127.0.0.1', () => {
    say({ port: service.address().port, report: report.address().port });
  });
});

readline.createInterface({ input: process.stdin }).once('line', line => {
  Object.assign(process.env, JSON.parse(line));
  const era = process.argv[2];
  const app = era === 'ldap' ? require('./ldap') : require('./app');
  service.on('request', app);
  say({ ready: true });
});

// Nobody is left to stop us when the test ends unexpectedly.
process.stdin.on('end', () => process.exit(0));

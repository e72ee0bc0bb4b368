const greet = require('./lib/greet');
const fs = require('fs');
console.log(greet(process.env.NODE_ENV), require('os').userInfo().username, fs.readFileSync('built.txt', 'utf8'));

-- One vote, whole or not at all. Repeating it changes nothing.
-- KEYS: hash of votes (voter -> code), hash of the tally (code -> n).
-- ARGV: voter, code ('' withdraws), opens, closes (Unix seconds; 0 = never), allowed codes…
-- Returns {what happened, the code held before ('' if none)}.
local votes, tally = KEYS[1], KEYS[2]
local voter, code = ARGV[1], ARGV[2]
local opens, closes = tonumber(ARGV[3]), tonumber(ARGV[4])

local held = redis.call('HGET', votes, voter) or ''

local allowed = code == ''
for i = 5, #ARGV do
  allowed = allowed or ARGV[i] == code
end
if not allowed then
  return {'unknown', held}
end

local now = tonumber(redis.call('TIME')[1])
if now < opens then
  return {'early', held}
end
if closes > 0 and now >= closes then
  return {'closed', held}
end

if held == code then
  return {'same', held}
end
-- The tally first: if one of these fails, the vote itself is not yet written.
if code ~= '' then
  redis.call('HINCRBY', tally, code, 1)
end
if held ~= '' then
  redis.call('HINCRBY', tally, held, -1)
end
if code == '' then
  redis.call('HDEL', votes, voter)
  return {'withdrawn', held}
end
redis.call('HSET', votes, voter, code)
return {'counted', held}

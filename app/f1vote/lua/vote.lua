-- Votes of one poll, each whole or not at all. Repeating them changes nothing.
-- ARGV: poll, opens, closes (Unix seconds; 0 = never), 1 if only admitted receipts may vote,
--       points by place ('3>2>1'), allowed codes ('NOR>PIA'), votes ('receipt=code>code;…', no
--       code withdraws).
-- Returns 'outcome held' by vote, one a line, in their order; held is what counted before.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally, recount = base .. 'meta', base .. 'tally', base .. 'recount'
local opens, closes = tonumber(ARGV[2]), tonumber(ARGV[3])
local admitted_only = ARGV[4] == '1'
local points, allowed = {}, {}
for value in string.gmatch(ARGV[5], '[^>]+') do points[#points + 1] = tonumber(value) end
for code in string.gmatch(ARGV[6], '[^>]+') do allowed[code] = true end

-- The organiser's word counts more than the file's.
local override = redis.call('HMGET', meta, 'opens', 'closes', 'frozen', 'told')
opens = override[1] and tonumber(override[1]) or opens
closes = override[2] and tonumber(override[2]) or closes
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local refused = (closes > 0 and now >= closes and 'closed')
  or (now < opens and 'early')
  or (override[3] == '1' and 'frozen')

-- A recount under way has counted the buckets before its cursor: what changes there is its, too.
local cursor = redis.call('HGET', recount, 'cursor')
cursor = cursor and tonumber(cursor)
local ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local function number_of(bucket)
  local number = 0
  for at = 1, 3 do
    number = number * 32 + string.find(ALPHABET, string.sub(bucket, at, at), 1, true) - 1
  end
  return number
end

-- Does `value` name allowed codes, each once, and no more than there are places?
local function valid(value)
  local seen, places = {}, 0
  for code in string.gmatch(value .. '>', '([^>]*)>') do
    places = places + 1
    if not allowed[code] or seen[code] then return false end
    seen[code] = true
  end
  return places <= #points
end

local function add(deltas, value, sign)
  local place = 0
  for code in string.gmatch(value, '[^>]+') do
    place = place + 1
    -- The file may name fewer places than when the vote was cast.
    deltas[code] = (deltas[code] or 0) + sign * (points[place] or 0)
  end
end

local changes, voters, deltas = 0, 0, {}
local counted_voters, counted_deltas = 0, {}
local answer = {}
for receipt, value in string.gmatch(ARGV[7], '([^=;]+)=([^;]*)') do
  local bucket, field = string.sub(receipt, 1, 3), string.sub(receipt, 4)
  local key = base .. 'votes:' .. bucket
  local held = redis.call('HGET', key, field) or ''
  local outcome
  if held == value then
    -- Before all else: a vote that was counted in time and is repeated late is counted.
    outcome = 'same'
  elseif refused then
    outcome = refused
  elseif admitted_only and redis.call('SISMEMBER', base .. 'codes', receipt) == 0 then
    outcome = 'code'
  elseif value ~= '' and not valid(value) then
    outcome = 'unknown'
  else
    outcome = value == '' and 'withdrawn' or held == '' and 'counted' or 'changed'
    local more = (value ~= '' and 1 or 0) - (held ~= '' and 1 or 0)
    changes, voters = changes + 1, voters + more
    add(deltas, held, -1)
    add(deltas, value, 1)
    if cursor and number_of(bucket) < cursor then
      counted_voters = counted_voters + more
      add(counted_deltas, held, -1)
      add(counted_deltas, value, 1)
    end
    if value == '' then
      redis.call('HDEL', key, field)
    else
      redis.call('HSET', key, field, value)
    end
  end
  answer[#answer + 1] = outcome .. ' ' .. held
end

if changes > 0 then
  for code, delta in pairs(deltas) do
    if delta ~= 0 then redis.call('HINCRBY', tally, code, delta) end
  end
  for code, delta in pairs(counted_deltas) do
    if delta ~= 0 then redis.call('HINCRBY', recount, 'n:' .. code, delta) end
  end
  if counted_voters ~= 0 then redis.call('HINCRBY', recount, 'voters', counted_voters) end
  if voters ~= 0 then redis.call('HINCRBY', meta, 'voters', voters) end
  redis.call('HINCRBY', meta, 'version', changes)
  -- Not for every vote: who hears it reads the standing a little later than this pause.
  local told = override[4] and tonumber(override[4]) or 0
  if now - told >= 0.2 or now < told then
    redis.call('HSET', meta, 'told', string.format('%.3f', now))
    redis.call('PUBLISH', 'f1:changed', ARGV[1])
  end
end
return table.concat(answer, '\n')
